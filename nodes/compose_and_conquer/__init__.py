"""Nodes of Compose and Conquer."""
