"""Nodes of layouts: say where things go, what they are and in which order they lie.

Draw a layout                    canvas.StageLayoutCanvas
Write, paste or make of masks    layout.StageLayout
Change one                       edit.StageLayoutEdit
Another layout for each picture  layout.StageLayoutBatch
See one                          layout.StageLayoutPreview
"""
