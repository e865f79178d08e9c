"""ComfyUI nodes: a schema and a few lines that call the core each."""

from .layered_rendering import StageLayeredRendering
from .layout import StageLayout, StageLayoutPreview
from .score import StageLayoutScore

NODES = [StageLayout, StageLayoutPreview, StageLayeredRendering, StageLayoutScore]
