"""Nodes of pictures in layers.

Composite Layers    composite.StageComposite
Save Layers         files.StageSaveLayers
Load Layers         files.StageLoadLayers
"""
