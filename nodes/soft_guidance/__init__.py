"""Nodes of soft guidance: tokens that only their own region of the picture sees.

Give a region words or looks          soft_guidance.StageRegionTokens
Keep looks and words to their region  soft_guidance.StageSoftGuidance
Take looks from reference pictures    exemplars.StageExemplars
"""
