"""The only place that imports ComfyUI's node API: the numbered version we are written for, else the newest."""

try:
    from comfy_api.v0_0_2 import ComfyExtension, io, ui
except ImportError:
    from comfy_api.latest import ComfyExtension, io, ui

__all__ = [
    "Array",
    "Bbox",
    "BoundingBox",
    "BoundingBoxes",
    "Clip",
    "CnC",
    "ComfyExtension",
    "Exemplars",
    "LayeredVAE",
    "Layers",
    "LayerSettings",
    "Layout",
    "RegionTokens",
    "Segmenters",
    "Segs",
    "VQGAN",
    "io",
    "ui",
]

Layout = io.Custom("STAGE_LAYOUT")
LayerSettings = io.Custom("STAGE_LAYER_SETTINGS")
CnC = io.Custom("STAGE_CNC")
Exemplars = io.Custom("STAGE_EXEMPLARS")
LayeredVAE = io.Custom("STAGE_LAYERED_VAE")
RegionTokens = io.Custom("STAGE_REGION_TOKENS")
Segmenters = io.Custom("STAGE_SEGMENTER")  # a tuple of one or several
VQGAN = io.Custom("STAGE_VQGAN")
Clip = io.Custom("STAGE_CLIP")  # with both towers, unlike ComfyUI's CLIP and CLIP_VISION
# Official types of newer versions, spoken by name where the version at hand has no class for them.
BoundingBox = getattr(io, "BoundingBox", None) or io.Custom("BOUNDING_BOX")
BoundingBoxes = getattr(io, "BoundingBoxes", None) or io.Custom("BOUNDING_BOXES")
Layers = getattr(io, "Layers", None) or io.Custom("LAYERS")
Array = getattr(io, "Array", None) or io.Custom("ARRAY")
# What detectors of other packs give; ComfyUI knows the names, and nobody's class is needed.
Segs = getattr(io, "SEGS", None) or io.Custom("SEGS")
Bbox = getattr(io, "BBOX", None) or io.Custom("BBOX")
