"""The noun that every method reads: what lies where on a canvas."""
