"""Attention of the networks that ComfyUI runs.

record while a model is evaluated        recording.recording
what an attention is given               arguments.named_arguments
what each class of networks is like      families.FAMILIES
text and picture in a transformer's call orders.Call
where a prompt's phrases are             prompts.columns_in
blocks that show where phrases look      found_blocks.find_blocks
LRDiff Eq. 6: where a phrase looks       phrases.read_phrase_attention
maps of a given picture                  maps.attention_maps
"""
