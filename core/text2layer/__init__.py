"""Text2Layer (arXiv 2307.09781): foreground, background and mask from one prompt."""
