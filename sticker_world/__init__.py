"""Sticker World: a small world with exact ground truth, and the scripts that train the embedded models on it."""
