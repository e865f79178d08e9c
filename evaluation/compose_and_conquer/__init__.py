"""Compose and Conquer measured: depth order, looks, reconstruction."""
