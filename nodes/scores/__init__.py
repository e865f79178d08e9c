"""Nodes of scores.

Layout Score    layout_score.StageLayoutScore
"""
