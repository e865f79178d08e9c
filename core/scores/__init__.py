"""How well a picture keeps to its layout."""
