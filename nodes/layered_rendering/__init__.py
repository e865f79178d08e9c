"""Nodes of layered rendering: every thing of a layout painted in a layer of its own, then joined.

Paint by layers                 layered_rendering.StageLayeredRendering
What calls a thing into it       vision_guidance.chosen_guidance
Give a layer its own settings   layer_settings.StageLayerSettings
"""
