"""LRDiff (arXiv 2311.18435): layers painted apart until t0, then one picture."""
