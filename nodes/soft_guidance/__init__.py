"""Nodes of soft guidance."""
