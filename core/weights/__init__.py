"""Weights on disk and in memory.

gradients through inference weights    differentiable.GradientSession
weights in few bits, out               packed.pack_weights
weights in few bits, in                packed.unpack_weights
folders in Hugging Face's layout       folders.ModelFolder
tensors out of a pickle                pickled.read_pickled_tensors
and kept as safetensors beside it      kept.open_checkpoint
files whole or not at all              whole_files.whole_files
"""
