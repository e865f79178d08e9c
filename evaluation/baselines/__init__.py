"""What the methods are measured against, written independently of them.

Chen et al. 2023, arXiv 2304.03373  slow_guidance.slow_chen_loop
MultiDiffusion, arXiv 2302.08113    multidiffusion.method.paint_regions
what a picture costs                counting
"""
