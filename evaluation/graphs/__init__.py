"""Prompts for the API queue, method by method.

what all have in common       builder.GraphBuilder
what they hear of colours     colours.coloured
what each is told             told.TOLD
rows of the network, counted  counted.counted
the prompt alone              plain.plain
ComfyUI's regional prompting  methods.set_mask
MultiDiffusion                methods.MultiDiffusion
LRDiff, arXiv 2311.18435      lrdiff.LRDiff
SALI, arXiv 2401.16157        sali.Sali
soft guidance                 soft.Soft
methods by name               methods.METHODS
"""
