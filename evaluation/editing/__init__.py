"""Edits of real scenes by our nodes, beside inpainting: `python stage.py evaluate editing`.

stage.py evaluate editing    evaluate.evaluate
the graphs                   graphs.METHODS
what is measured             measures.edit_line
"""
