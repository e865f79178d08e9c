"""Nodes of Compose and Conquer.

Depth Compose           compose.StageDepthCompose
Depth Pair              depth_pair.StageDepthPair
Load CnC                models.StageCnCLoader
Convert CnC Checkpoint  models.StageCnCConvert
"""
