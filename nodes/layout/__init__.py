"""Nodes of layouts."""
