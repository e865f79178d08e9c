"""Training of Compose and Conquer's fusers."""
