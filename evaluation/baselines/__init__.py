"""What the methods are measured against, written independently of them."""
