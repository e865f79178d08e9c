"""The embedded VQGAN."""
