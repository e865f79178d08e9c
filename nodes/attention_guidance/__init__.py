"""Nodes of attention guidance.

Attention Guidance    attention_guidance.StageAttentionGuidance
Guidance Report       attention_guidance.StageGuidanceReport
Attention Maps        attention_maps.StageAttentionMaps
"""
