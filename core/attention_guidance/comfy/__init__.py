"""Attention guidance in a run of ComfyUI's samplers."""
