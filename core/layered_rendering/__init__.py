"""LRDiff (arXiv 2311.18435): layers painted apart until t0, then one picture.

Eq. 5                 vision_guidance.vision_guidance
Eq. 6                 vision_guidance.dynamic_vector
Eq. 7, 8              compositing.fused_prediction
join at t0            compositing.join_layers
scale of xi           vision_guidance.state_scale
parts of crop         parts.shared_sizes
Alg. 1                comfy.render.render_in_layers
"""
