"""Nodes of Compose and Conquer: a foreground before a background, by two depth maps.

Make two depth maps of a picture  depth_pair.StageDepthPair
Load the fusers                   models.StageCnCLoader
Paint by both depths              compose.StageDepthCompose
"""
