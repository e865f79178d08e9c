"""Nodes of TCIG.

TCIG Draft                draft.StageTCIGDraft
TCIG Refine               refine.StageTCIGRefine
Load VQGAN                models.StageVQGANLoader
Convert VQGAN Checkpoint  models.StageVQGANConvert
Load CLIP Folder          models.StageCLIPLoader
"""
