"""Prompts for the API queue, method by method."""
