"""CLIP folders in the graph: both towers together, and the one that sees by itself."""

from ...core.clip.comfy.folder import FolderClip
from ...core.clip.comfy.vision import CLIP_FOLDERS, load_clip_vision
from ..api import Clip, io
from ..inputs import FileLoader, category_of


class StageCLIPLoader(FileLoader, io.ComfyNode):
    """Folder -> a CLIP with both towers, and its picture tower as CLIP_VISION."""

    FILES, FILE_INPUT = CLIP_FOLDERS, "folder"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageCLIPLoader",
            display_name="Load CLIP Folder",
            category=category_of(__name__),
            description="Loads a CLIP in the Hugging Face layout, also the small embedded one: the side that reads "
            "texts with the side that sees pictures, and the latter by itself as CLIP_VISION.",
            inputs=[
                cls.file_input(
                    tooltip="Folder under models/hf_clip with config.json, model.safetensors and, for the output clip, "
                    "the tokenizer. sticker_world knows the embedded models' world and belongs to the embedded CnC "
                    "file; the published one needs clip-vit-large-patch14. A larger CLIP knows more and takes longer.",
                )
            ],
            outputs=[
                Clip.Output(
                    display_name="clip",
                    tooltip="Both sides, for TCIG Draft, which reads them when it runs; the folder of a vision tower "
                    "alone has none.",
                ),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="The side that sees pictures, for Exemplars, or any node that takes one.",
                ),
            ],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Load the picture side; both together are read by who needs them."""
        return io.NodeOutput(FolderClip(folder), load_clip_vision(folder))
