"""Compose and Conquer (arXiv 2401.09048): two depths and two looks in one picture."""
