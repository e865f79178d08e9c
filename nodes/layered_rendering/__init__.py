"""Nodes of layered rendering."""
