"""ComfyUI nodes: a schema and a few lines that call the core each."""

from .attention_guidance.attention_guidance import StageAttentionGuidance, StageGuidanceReport
from .attention_guidance.attention_maps import StageAttentionMaps
from .clip.folder import StageCLIPLoader
from .compose_and_conquer.compose import StageDepthCompose
from .compose_and_conquer.depth_pair import StageDepthPair
from .compose_and_conquer.models import StageCnCLoader
from .editing.edit_picture import StageEditPicture
from .editing.edits import StageEditInsert, StageEditMove, StageEditRemove, StageEditReplace
from .fitting import refuse_unfit
from .inversion.invert import StageInvert
from .inversion.spatial_latent import StageSpatialLatent
from .layered_rendering.layer_settings import StageLayerSettings
from .layered_rendering.layered_rendering import StageLayeredRendering
from .layers.composite import StageComposite
from .layers.files import StageLoadLayers, StageSaveLayers
from .layout.canvas import StageLayoutCanvas
from .layout.edit import StageLayoutEdit
from .layout.layout import StageLayout, StageLayoutBatch, StageLayoutPreview
from .scores.layout_score import StageLayoutScore
from .segmentation.segment import StageSegment, StageSegmenterLoader
from .soft_guidance.exemplars import StageExemplars
from .soft_guidance.soft_guidance import StageRegionTokens, StageSoftGuidance
from .tcig.draft import StageTCIGDraft
from .tcig.models import StageVQGANLoader
from .tcig.refine import StageTCIGRefine
from .text2layer.layer_by_layer import StageLayerByLayer
from .text2layer.split_layers import StageSplitLayers
from .text2layer.text2layer import StageLayersDecode, StageLayersEncode, StageText2LayerLoader

NODES = [
    StageLayout,
    StageLayoutCanvas,
    StageLayoutEdit,
    StageLayoutBatch,
    StageLayoutPreview,
    StageLayeredRendering,
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
    StageDepthCompose,
    StageExemplars,
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
    StageCLIPLoader,
    StageTCIGDraft,
    StageSegmenterLoader,
    StageSegment,
    StageTCIGRefine,
]

for _node in NODES:
    refuse_unfit(_node)
