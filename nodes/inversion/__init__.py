"""Nodes that find the noise of a picture, and paint from it.

Find the noise of a picture             invert.StageInvert
Start from noise that knows the layout  spatial_latent.StageSpatialLatent
"""
