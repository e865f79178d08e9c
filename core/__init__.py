"""The methods in plain torch: usable from any Python program. Only rooms called `comfy` import ComfyUI."""
