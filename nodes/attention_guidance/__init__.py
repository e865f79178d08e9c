"""Nodes of attention guidance."""
