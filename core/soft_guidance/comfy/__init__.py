"""Soft guidance in ComfyUI's attention."""
