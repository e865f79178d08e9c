"""Text2Layer (arXiv 2307.09781) measured at Sticker World's scale.

stage.py evaluate text2layer  evaluate.evaluate
prompts and scenes            sets.table_prompts
table I, U-Nets               rows.open_painter
table II, autoencoders        rows.open_codec
Frechet distance              scores.frechet_distance
thing by thing, on a server   layer_by_layer.paint
"""
