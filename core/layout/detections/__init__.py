"""What detectors and segmenters find in a picture, read as regions to name and to edit.

a batch of masks, as SAM nodes give       mask_batches.read_masks
SEGS, as the Impact Pack's detectors give  segments.read_segments
bare corners, as BBOX holds                corners.read_corners
"""
