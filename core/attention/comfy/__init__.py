"""Attention of the models that ComfyUI runs."""
