"""Nodes of TCIG."""
