"""TCIG measured."""
