"""The embedded CLIP and segmenters."""
