"""How well a picture keeps to its layout, and how pictures compare.

a picture against its layout             layout_score.score_picture
means over a set                         layout_score.summarize
drawn on the picture                     overlay.score_and_draw
box IoU                                  metrics.box_iou
mask IoU                                 metrics.mask_iou
what lies outside its region             metrics.bleed
presence, the strict judge               metrics.is_present
AP, as PASCAL VOC from 2010 on           metrics.average_precision
attention's peak in its mask             metrics.peak_in_mask
mean IoU of a segmenter                  metrics.mean_class_iou
CLIP similarity                          metrics.clip_similarity
"""
