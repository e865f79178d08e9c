"""Formats of pictures that the pack opens: those that Pillow decodes by itself.

Pillow recognises a file by its first bytes, whatever its name, and would start another program for some: Ghostscript
for EPS, which runs what the file says.
"""

from PIL import Image

Image.init()
# Those that this Pillow was built with; it raises a KeyError over any other.
FORMATS = tuple(name for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF") if name in Image.OPEN)
