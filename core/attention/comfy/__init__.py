"""Attention of the U-Nets that ComfyUI runs.

record while a model is evaluated     recording.recording
LRDiff Eq. 6: where a phrase looks    phrases.read_phrase_attention
maps of a given picture               maps.attention_maps
"""
