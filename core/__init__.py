"""The methods in plain torch: usable from any Python program, nothing here imports ComfyUI (only `core.host` does)."""
