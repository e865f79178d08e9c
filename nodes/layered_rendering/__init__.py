"""Nodes of layered rendering.

Layered Rendering     layered_rendering.StageLayeredRendering
Vision Guidance       vision_guidance.StageVisionGuidance
Layer Settings        layer_settings.StageLayerSettings
"""
