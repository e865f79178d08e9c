"""Nodes of scores.

See how well pictures follow a layout  layout_score.StageLayoutScore
"""
