"""TCIG's two stages in ComfyUI."""
