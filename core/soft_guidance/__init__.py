"""Soft guidance (Compose and Conquer, arXiv 2401.09048): tokens that only their own region looks at.

M' of any regions        soft_guidance.column_mask
cells of a mask          soft_guidance.cell_mask
as CnC appends tokens    soft_guidance.two_sides
masked attention         soft_guidance.SoftGuidance
in joint attention       joint.joint_bias
the same without a mask  merge.merged_attention
in ComfyUI               comfy.apply.apply_soft_guidance
"""
