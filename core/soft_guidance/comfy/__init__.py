"""Soft guidance in a run of ComfyUI's samplers.

on model and prompts     apply.apply_soft_guidance
tokens of regions        regions.phrase_regions
on prompts' entries      tokens.with_regions
in a run                 run.show_regions
one evaluation           call.SoftCall
kept between evaluations memory.Memory
an entry's context       columns.EntryColumns
masked attention         attention.SoftForward
that of transformers     transformers.TransformerForward
networks beside it       run.soft_attention
"""
