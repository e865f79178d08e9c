"""Nodes of inversion.

Invert            invert.StageInvert
Spatial Latent    spatial_latent.StageSpatialLatent
"""
