"""Inversion with ComfyUI's models and samplers."""
