"""Nodes of scores."""
