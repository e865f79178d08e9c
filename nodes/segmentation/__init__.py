"""Nodes of segmentation: what is where in a picture.

Load a segmentation model             segment.StageSegmenterLoader
Read masks and a layout in a picture  segment.StageSegment
"""
