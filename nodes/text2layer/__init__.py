"""Nodes of Text2Layer.

Load Text2Layer  text2layer.StageText2LayerLoader
Layers Decode    text2layer.StageLayersDecode
Layers Encode    text2layer.StageLayersEncode
Layer by Layer   layer_by_layer.StageLayerByLayer
Split Layers     split_layers.StageSplitLayers
"""
