"""The fusers of Compose and Conquer in the graph: files of them, and the published checkpoint."""

from ...core.comfy.model_folders import Fingerprint
from ...core.compose_and_conquer.comfy.files import CHECKPOINTS, CNC_FILES, convert_checkpoint, converted_file, load_cnc
from ..api import CnC, io
from ..inputs import FileLoader, category_of, file_choice


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
                    "one, a converted cnc_v1 for SD 1.5 and its finetunes.",
                )
            ],
            outputs=[CnC.Output(display_name="cnc", tooltip="For Depth Compose, and for Exemplars.")],
        )

    @classmethod
    def execute(cls, cnc_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_cnc(cnc_name))


class StageCnCConvert(io.ComfyNode):
    """Published checkpoint -> a file with the fusers alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageCnCConvert",
            display_name="Convert CnC Checkpoint",
            category=category_of(__name__),
            description="Takes the two fusers out of the published cnc_v1.ckpt and writes them as safetensors into "
            "models/cnc: about 1 GB of 6. Only tensors are read; nothing in the pickled file is run.",
            is_output_node=True,
            inputs=[
                file_choice(
                    "checkpoint",
                    CHECKPOINTS.names(),
                    CHECKPOINTS.place,
                    tooltip="Pickled file in models/cnc (.ckpt, .pt, .pth, .bin). It stays as it is; afterwards it may "
                    "be deleted. No file that is there already is replaced.",
                )
            ],
            outputs=[
                io.String.Output(
                    display_name="cnc_name", tooltip="Name of the new file. Reload the page to see it in Load CnC."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None) -> tuple[Fingerprint, bool]:
        """Convert again when the checkpoint was replaced or the result is gone."""
        if checkpoint is None:
            return (), False
        return CHECKPOINTS.version(checkpoint), converted_file(checkpoint).is_file()

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        """Convert it."""
        path, sentence = convert_checkpoint(checkpoint)
        return io.NodeOutput(path.name, ui={"text": (sentence,)})
