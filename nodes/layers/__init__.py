"""Nodes of pictures in layers.

Lay layers over each other, move them  composite.StageComposite
Save them for a painting program       files.StageSaveLayers
Open a painting program's file         files.StageLoadLayers
"""
