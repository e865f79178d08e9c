"""Nodes of TCIG: a draft that segmentation models steer, then painted again.

Paint the draft      draft.StageTCIGDraft
Paint a draft again  refine.StageTCIGRefine
Load a VQGAN         models.StageVQGANLoader
"""
