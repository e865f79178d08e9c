"""ComfyUI nodes: a schema and a few lines that call the core each."""

from .edit import StageEditInsert, StageEditMove, StageEditRemove, StageEditReplace
from .edit_picture import StageEditPicture
from .layer_settings import StageLayerSettings
from .layered_rendering import StageLayeredRendering
from .layout import StageLayout, StageLayoutBatch, StageLayoutPreview
from .layout_canvas import StageLayoutCanvas
from .layout_sources import StageLayoutEdit, StageLayoutFromJSON, StageLayoutFromMasks
from .score import StageLayoutScore
from .vision_guidance import StageVisionGuidance

NODES = [
    StageLayout,
    StageLayoutCanvas,
    StageLayoutFromMasks,
    StageLayoutFromJSON,
    StageLayoutEdit,
    StageLayoutBatch,
    StageLayoutPreview,
    StageLayeredRendering,
    StageVisionGuidance,
    StageLayerSettings,
    StageLayoutScore,
    StageEditInsert,
    StageEditReplace,
    StageEditRemove,
    StageEditMove,
    StageEditPicture,
]
