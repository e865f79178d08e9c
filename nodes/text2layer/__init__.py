"""Nodes of Text2Layer."""
