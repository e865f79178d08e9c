"""Attention maps, and what watches them."""
