"""Edits in a run of ComfyUI's samplers."""
