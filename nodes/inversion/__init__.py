"""Nodes of inversion."""
