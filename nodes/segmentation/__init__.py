"""Nodes of segmentation."""
