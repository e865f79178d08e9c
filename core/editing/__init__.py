"""Edits of a picture: insert, replace, remove, move (LRDiff, arXiv 2311.18435)."""
