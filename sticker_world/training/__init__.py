"""What every part is trained by.

the loop, resumable        loop.train
arrays on disk, made once  prepared.prepare
fast norms on a CPU        fast_norm.use_fast_norms
"""
