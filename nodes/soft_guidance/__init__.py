"""Nodes of soft guidance.

Soft Guidance            soft_guidance.StageSoftGuidance
Region Tokens            soft_guidance.StageRegionTokens
Exemplars                exemplars.StageExemplars
Load CLIP Vision Folder  exemplars.StageCLIPVisionLoader
"""
