"""Sticker World: a small world with exact ground truth, and the scripts that train the embedded models on it.

stage.py train                     cli.main
from nothing to shipped files      pipeline.PARTS
where the shipped files lie        shipped.CHECKPOINT_FILE
settings of a user's own training  own_settings.OwnPictures
"""
