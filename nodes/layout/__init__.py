"""Nodes of layouts: written, drawn, read, changed and shown.

Layout               layout.StageLayout
Layout Preview       layout.StageLayoutPreview
Layout Batch         layout.StageLayoutBatch
Layout Canvas        canvas.StageLayoutCanvas
Layout From Masks    sources.StageLayoutFromMasks
Layout From JSON     sources.StageLayoutFromJSON
Edit Layout          sources.StageLayoutEdit
"""
