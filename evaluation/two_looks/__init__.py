"""Two regions with a LoRA each: whether looks stay where they were asked for, `python stage.py evaluate two_looks`.

paint and judge          evaluate.evaluate
layouts and graphs       graphs.looked_layouts
which look pixels have   measure.LookMeasure
make that measure        measure.main
"""
