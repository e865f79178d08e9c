"""Stagecraft for ComfyUI: say where things go, what they are and in which layer they lie.

The front door: which nodes there are, where the web files lie, and where the embedded weights are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.api import ComfyExtension

WEB_DIRECTORY = "./web"
PACK = Path(__file__).parent
MODELS = PACK / "models"


async def comfy_entrypoint() -> "ComfyExtension":
    """Give ComfyUI our nodes, after making the shipped weights appear in its drop-downs."""
    import folder_paths

    from .core.comfy.layout_reader import serve_reader
    from .core.comfy.sticker_world import register_model_class
    from .core.comfy.web_files import serve_files
    from .nodes import NODES
    from .nodes.api import ComfyExtension

    for folder in sorted(MODELS.iterdir()) if MODELS.is_dir() else []:
        if folder.is_dir():
            folder_paths.add_model_folder_path(folder.name, str(folder))

    register_model_class()
    serve_reader()
    serve_files(PACK.name, {"extensions": PACK / "web", "workflow_templates": PACK / "workflows"})

    class Stagecraft(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return NODES

    return Stagecraft()
