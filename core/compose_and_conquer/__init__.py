"""Compose and Conquer (arXiv 2401.09048): two depths and two looks in one picture.

Section 3.1: local fuser                  local_fuser.LocalFuser
Section 3.1: FDN                          sd1_blocks.Denormalisation
Section 3.1: two streams of depth         local_fuser.FeatureExtractor
Section 3.2: global fuser                 global_fuser.GlobalFuser
Two depths, what they add and when        depth_maps.Depths
Both depths out of two, one, or a layout  depth_pair.pair_from_layouts
Shapes, and which U-Net they fit          config.FuserConfig
Files, and the published checkpoint       files.read_fusers
In any sampler                            comfy.compose.compose_depth
"""
