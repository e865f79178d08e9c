"""The fixed sets of layouts."""
