"""Reading pictures: what lies where in them, as segmentation networks see it.

a segmenter with classes                segmenter.Segmenter
one that takes any phrase               segmenter.OpenSegmenter
several as one                          joint.join_segmenters
its folder opened                       files.open_folder
SegFormer's logits                      networks.semantic_logits
Mask2Former's, arXiv 2112.01527, 3.2    networks.query_logits
CLIPSeg's, arXiv 2112.10003             networks.phrase_logits
a phrase's class                        class_names.match_class
a layout out of a picture               layout_from_picture.read_layout
in ComfyUI's folders                    comfy.load_segmenter
"""
