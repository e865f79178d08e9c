"""The fusers of Compose and Conquer in the graph."""

from ...core.compose_and_conquer.comfy.files import CNC_FILES, load_cnc
from ..api import CnC, io
from ..inputs import FileLoader, category_of


class StageCnCLoader(FileLoader, io.ComfyNode):
    """File -> the fusers of Compose and Conquer."""

    FILES, FILE_INPUT = CNC_FILES, "cnc_name"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageCnCLoader",
            display_name="Load CnC",
            category=category_of(__name__),
            description="Loads the fusers of Compose and Conquer, which put a foreground in front of a background by "
            "depth and give each a look of its own.",
            inputs=[
                cls.file_input(
                    tooltip="File in models/cnc. It has to fit the checkpoint: sticker_world_cnc is for the embedded "
                    "one, cnc_v1.ckpt for SD 1.5 and its finetunes. Of a .ckpt only tensors are read; the fusers are "
                    "kept as safetensors beside it, 1 GB of 6.",
                )
            ],
            outputs=[CnC.Output(display_name="cnc", tooltip="For Depth Compose, and for Exemplars.")],
        )

    @classmethod
    def execute(cls, cnc_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_cnc(cnc_name))
