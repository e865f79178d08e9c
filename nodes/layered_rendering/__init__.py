"""Nodes of layered rendering: every thing of a layout painted in a layer of its own, then joined.

Paint by layers                 layered_rendering.StageLayeredRendering
Pull a layer towards its thing  vision_guidance.StageVisionGuidance
Give a layer its own settings   layer_settings.StageLayerSettings
"""
