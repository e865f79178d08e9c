"""Training of Text2Layer."""
