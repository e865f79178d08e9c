"""TCIG's two stages in ComfyUI.

Stage one                         draft.draft_pictures
Stage two                         refine.refine
Regions let go one after another  refine.hold_until_due
Drop-downs of VQGANs              models.VQGAN_FILES
"""
