"""Split Layers on scenes whose layers are known exactly, beside cutting out: `python stage.py evaluate split`.

stage.py evaluate split     evaluate.evaluate
one thing after the other   peeling.split_scene
what is measured            measures.layer_measures
"""
