"""The only rooms that may import a host program such as ComfyUI."""
