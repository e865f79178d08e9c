"""The fixed sets: layouts, prompts, pairs, looks, things behind others and edits; how they were made.

layouts                   sets.load_set
prompts without a layout  sets.load_presence
overlapping pairs         pairs.load_pairs
looks                     pairs.load_looks
things behind others      hidden_pairs.load_hidden
scenes to paint again     pairs.real_scenes
edits of real scenes      edits.load_edits
concepts equally often    balanced.balanced_indices
make layouts and prompts  make_layouts.main
make pairs and looks      make_pairs.main
make edits                make_edits.main
how large things look     make_visible_areas.main
"""
