"""Layered rendering as ComfyUI's regional conditioning."""
