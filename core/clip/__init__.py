"""CLIP: the embedded one, folders of others, words."""
