"""Nodes of CLIP.

Load one from a folder  folder.StageCLIPLoader
"""
