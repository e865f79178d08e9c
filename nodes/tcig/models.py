"""The VQGANs of TCIG's first stage in the graph."""

from ...core.tcig.comfy.models import VQGAN_FILES, load_vqgan_by_name
from ..api import VQGAN, io
from ..inputs import FileLoader, category_of


class StageVQGANLoader(FileLoader, io.ComfyNode):
    """Folder or file -> a VQGAN."""

    FILES, FILE_INPUT = VQGAN_FILES, "vqgan_name"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageVQGANLoader",
            display_name="Load VQGAN",
            category=category_of(__name__),
            description="Loads a VQGAN, which paints TCIG's drafts from a grid of codes.",
            inputs=[
                cls.file_input(
                    tooltip="Folder in models/vqgan in diffusers' layout, or a file of taming-transformers; of a "
                    "published .ckpt only tensors are read, and kept as safetensors beside it. A larger one paints "
                    "more kinds of things and takes longer; a smaller one, such as the pack's own training makes, is "
                    "quick and knows a small world.",
                )
            ],
            outputs=[VQGAN.Output(display_name="vqgan", tooltip="For TCIG Draft.")],
        )

    @classmethod
    def execute(cls, vqgan_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_vqgan_by_name(vqgan_name))
