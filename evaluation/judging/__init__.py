"""Judges, and what they say of pictures.

segmenter and CLIP       yardsticks.Yardsticks
CLIP similarity and KID  yardsticks.image_scores
judge pictures           scoring.score
what is kept of them     scoring.layout_lines
"""
