"""Formats of pictures that the pack opens: those that Pillow decodes by itself.

Pillow recognises a file by its first bytes, whatever its name, and would start another program for some: Ghostscript
for EPS, which runs what the file says.
"""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
