"""Edits of a given picture (LRDiff, arXiv 2311.18435; its editing as reconstructed): insert, replace, remove, move.

edits                 edits.Edit
their masks           edits.plan_edits
editing a picture     comfy.edit.edit_picture
in a run              comfy.run.run_edits
"""
