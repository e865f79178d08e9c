"""Nodes of attention guidance: a run that is pulled towards a layout, and what its attention looks at.

Guide a run by its attention maps  attention_guidance.StageAttentionGuidance
See how the guidance went          attention_guidance.StageGuidanceReport
See where each phrase looks        attention_maps.StageAttentionMaps
"""
