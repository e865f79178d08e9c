"""Reading pictures: what lies where in them."""
