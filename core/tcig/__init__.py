"""TCIG (arXiv 2403.01212): VQGAN+CLIP steered by segmentation models, then a diffusion model."""
