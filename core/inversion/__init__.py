"""DDIM inversion and starts that know the layout (SALI, arXiv 2401.16157)."""
