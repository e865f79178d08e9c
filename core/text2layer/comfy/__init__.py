"""Text2Layer in ComfyUI."""
