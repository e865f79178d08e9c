"""Nodes of layouts: say where things go, what they are and in which order they lie.

Draw a layout                    canvas.StageLayoutCanvas
Write a layout                   layout.StageLayout
Make one of masks                sources.StageLayoutFromMasks
Read one of another program      sources.StageLayoutFromJSON
Change one                       sources.StageLayoutEdit
Another layout for each picture  layout.StageLayoutBatch
See one                          layout.StageLayoutPreview
"""
