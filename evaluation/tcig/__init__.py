"""TCIG (arXiv 2403.01212) measured: both stages, and its models by themselves.

stage.py evaluate tcig        evaluate.evaluate
stage two at every denoise    sweep.sweep
its graphs                    graphs.TCIG
stage two of the start alone  graphs.Start
img2img of a flat drawing     graphs.Drawing
VQGAN and specialists         models.model_measures
"""
