"""Judges, and what they say of pictures.

segmenter and CLIP       yardsticks.Yardsticks
CLIP similarity and KID  yardsticks.image_scores
judge pictures           scoring.score
rows of a set            scoring.layout_rows
"""
