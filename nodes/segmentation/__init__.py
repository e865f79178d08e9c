"""Nodes of segmentation.

Load Segmenter    segment.StageSegmenterLoader
Segment           segment.StageSegment
"""
