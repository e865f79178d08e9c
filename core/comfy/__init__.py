"""What every method needs of ComfyUI."""
