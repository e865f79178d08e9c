"""Judges, and what they say of pictures."""
