"""Attention maps: where they are read, how they are recorded, what is counted and drawn of them.

which attentions are read               sites.choose_sites
blocks whose maps agree                 block_choice.choose_blocks
text and picture in one sequence        token_order.TokenOrder
fill a recorder in one pass             recorder.AttentionRecorder
columns of softmax(q k^T / sqrt d)      maps.token_maps
the same by any fused kernel            maps.indicator_maps
which word is at a position             maps.among_words
self-attention of regions               maps.region_maps
LRDiff: mean over down stages           maps.average_maps
a phrase's map at one site              maps.phrase_map
some queries at a time                  in_blocks.query_blocks
exact backward pass, no softmax kept    recomputed.recomputed_attention
attention and its log-sum-exp           with_lse.attention_with_lse
a map over its picture                  heat_maps.draw_heat_map
maps for the layout canvas              shown_maps.write_maps
in ComfyUI's networks                   comfy.recording.recording
how each class orders its tokens        comfy.families.FAMILIES
LRDiff Eq. 6: where a phrase looks      comfy.phrases.read_phrase_attention
maps of a given picture                 comfy.maps.attention_maps
in diffusers' U-Nets                    diffusers.record_attention
"""
