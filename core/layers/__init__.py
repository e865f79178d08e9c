"""Pictures in layers, on the canvas and in files."""
