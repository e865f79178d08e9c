"""Nodes of Text2Layer: foreground, background and mask.

Load its model and autoencoder         text2layer.StageText2LayerLoader
Latents to layers                      text2layer.StageLayersDecode
Layers to latents                      text2layer.StageLayersEncode
Paint thing by thing, each in a layer  layer_by_layer.StageLayerByLayer
Split a picture into layers            split_layers.StageSplitLayers
"""
