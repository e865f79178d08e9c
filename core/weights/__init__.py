"""Weights on disk and in memory.

gradients through inference weights    differentiable.GradientSession
weights in few bits, out               packed.pack_weights
weights in few bits, in                packed.unpack_weights
tensors out of a pickle                pickled.read_pickled_tensors
"""
