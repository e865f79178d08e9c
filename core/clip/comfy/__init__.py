"""CLIP as ComfyUI holds it."""
