"""Nodes of pictures in layers."""
