"""Nodes of edits."""
