"""Moving the latents so that words attend to their places (SALI, arXiv 2401.16157, and its neighbours)."""
