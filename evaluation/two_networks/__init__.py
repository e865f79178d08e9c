"""The same methods on both embedded networks, the U-Net and the transformer.

stage.py evaluate networks                   evaluate.evaluate
another checkpoint, and what a picture costs  counted.counted
where the transformer's words look            word_maps.word_map_measures
"""
