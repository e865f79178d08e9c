"""ComfyUI nodes: a schema and a few lines that call the core each."""

from .attention_guidance import StageAttentionGuidance, StageGuidanceReport
from .attention_maps import StageAttentionMaps
from .cnc import StageCnCConvert, StageCnCLoader, StageDepthCompose
from .depth_pair import StageDepthPair
from .edit import StageEditInsert, StageEditMove, StageEditRemove, StageEditReplace
from .edit_picture import StageEditPicture
from .exemplars import StageCLIPVisionLoader, StageExemplars
from .invert import StageInvert
from .layer_by_layer import StageLayerByLayer
from .layer_files import StageLoadLayers, StageSaveLayers
from .layer_settings import StageLayerSettings
from .layered_rendering import StageLayeredRendering
from .layers import StageComposite
from .layout import StageLayout, StageLayoutBatch, StageLayoutPreview
from .layout_canvas import StageLayoutCanvas
from .layout_sources import StageLayoutEdit, StageLayoutFromJSON, StageLayoutFromMasks
from .score import StageLayoutScore
from .segment import StageSegment, StageSegmenterLoader
from .soft_guidance import StageRegionTokens, StageSoftGuidance
from .spatial_latent import StageSpatialLatent
from .split_layers import StageSplitLayers
from .tcig import StageTCIGDraft
from .tcig_models import StageCLIPLoader, StageVQGANConvert, StageVQGANLoader
from .tcig_refine import StageTCIGRefine
from .text2layer import StageLayersDecode, StageLayersEncode, StageText2LayerLoader
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
    StageAttentionGuidance,
    StageGuidanceReport,
    StageAttentionMaps,
    StageLayoutScore,
    StageEditInsert,
    StageEditReplace,
    StageEditRemove,
    StageEditMove,
    StageEditPicture,
    StageInvert,
    StageSpatialLatent,
    StageDepthPair,
    StageCnCLoader,
    StageCnCConvert,
    StageDepthCompose,
    StageExemplars,
    StageCLIPVisionLoader,
    StageSoftGuidance,
    StageRegionTokens,
    StageText2LayerLoader,
    StageLayerByLayer,
    StageLayersDecode,
    StageLayersEncode,
    StageComposite,
    StageSaveLayers,
    StageLoadLayers,
    StageSplitLayers,
    StageVQGANLoader,
    StageVQGANConvert,
    StageCLIPLoader,
    StageTCIGDraft,
    StageSegmenterLoader,
    StageSegment,
    StageTCIGRefine,
]
