"""What layered rendering writes on conditioning entries.

Tensors, lists of tensors, numbers and words only, so that ComfyUI can save them.
"""

LAYER = "stagecraft_layer"  # number that the entries of one layer share; without it an entry is global
VISIBLE = "stagecraft_visible_mask"  # (b h w) at the canvas' resolution
OWN = "stagecraft_own_mask"  # (b h w) at the canvas' resolution, hidden parts included
DELTA = "stagecraft_delta"  # (b c) in the model's latent space
SIDES = "stagecraft_sides"  # (2) factors of delta inside and outside
INJECT = "stagecraft_inject"  # one of vision_guidance.INJECTIONS
WORDS = "stagecraft_words"  # for dynamic delta: for each picture the phrase's token positions (m)
LAMBDA = "stagecraft_lambda"  # for dynamic delta: (b)
TOP_K = "stagecraft_top_k"  # for dynamic delta
CFG = "stagecraft_cfg"  # the layer's own guidance scale
CROP = "stagecraft_crop"  # margin in latent cells around what is seen of the layer
LAYERS_UNTIL = "stagecraft_layers_until"  # on global entries: share of the run at which the layers hand over
TRAJECTORIES_UNTIL = "stagecraft_trajectories_until"  # on all entries: share of the run that layers are sampled apart
