"""The embedded CLIP and segmenters.

train CLIP                  clip.train_clip
train a segmenter           segmenter.train_segmenter
write CLIP's folder         export.export_clip
write a segmenter's folder  export.export_segmenter
"""
