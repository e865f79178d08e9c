"""Attention guidance in a run of ComfyUI's samplers.

put it on a model                        guide.guide_attention
one run: when and what is moved          run.GuidedRun
energy and gradient through the U-Net    gradients.AttentionGradient
"""
