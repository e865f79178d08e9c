"""Attention guidance in a run of ComfyUI's samplers.

put it on a model                        guide.guide_attention
one run: when and what is moved          run.GuidedRun
energy and gradient through a network   gradients.AttentionGradient
what such a pass has otherwise           differentiable_pass.training_paths
the derivative of comfy-kitchen's RoPE   kitchen_gradients.differentiate_rope
"""
