"""Compose and Conquer in ComfyUI."""
