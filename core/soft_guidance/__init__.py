"""Tokens that only their region sees (Compose and Conquer, arXiv 2401.09048)."""
