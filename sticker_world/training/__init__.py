"""The loop that every part is trained by."""
