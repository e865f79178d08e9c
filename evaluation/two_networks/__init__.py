"""The same methods on both embedded networks, the U-Net and the transformer.

stage.py evaluate networks          evaluate.evaluate
where the transformer's words look  word_maps.word_map_measures
"""
