"""Looks of reference pictures in the graph, and the CLIP that reads them."""

from torch import Tensor

from ...core.clip.comfy.vision import CLIP_FOLDERS, load_clip_vision
from ...core.comfy.types import ClipVision
from ...core.compose_and_conquer.comfy.exemplars import make_exemplars
from ...core.compose_and_conquer.comfy.files import CnC
from ..api import CnC as CnCSocket
from ..api import Exemplars as ExemplarsSocket
from ..api import io
from ..inputs import FileLoader, category_of


class StageCLIPVisionLoader(FileLoader, io.ComfyNode):
    """Name of a CLIP folder -> CLIP_VISION."""

    FILES, FILE_INPUT = CLIP_FOLDERS, "folder"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageCLIPVisionLoader",
            display_name="Load CLIP Vision Folder",
            category=category_of(__name__),
            description="Loads the picture side of a CLIP in the Hugging Face layout, also of the small embedded one, "
            "which Load CLIP Vision does not know.",
            inputs=[
                cls.file_input(
                    tooltip="Folder under models/hf_clip with config.json and model.safetensors. sticker_world belongs "
                    "to the embedded CnC file; the published one needs clip-vit-large-patch14.",
                ),
            ],
            outputs=[
                io.ClipVision.Output(display_name="clip_vision", tooltip="For Exemplars, or any node that takes one.")
            ],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_clip_vision(folder))


class StageExemplars(io.ComfyNode):
    """Reference pictures -> tokens of their looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""

        def strength(side: str) -> io.Float.Input:
            return io.Float.Input(
                f"{side}_strength",
                default=1.0,
                min=0.0,
                max=2.0,
                step=0.05,
                tooltip=f"Times the tokens of the {side}'s look. Higher takes over more of it, lower leaves it to the "
                "prompt; at 0 the tokens are empty but still take attention from the text, as published.",
            )

        return io.Schema(
            node_id="StageExemplars",
            display_name="Exemplars",
            category=category_of(__name__),
            description="Turns reference pictures of a foreground and a background into tokens that say how each shall "
            "look (Compose and Conquer's global fuser).",
            inputs=[
                CnCSocket.Input("cnc", tooltip="From Load CnC: whose global fuser reads the pictures."),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="What the fuser was trained with: clip-vit-large-patch14 for the published file, the "
                    "folder sticker_world for the embedded one. Another is refused.",
                ),
                io.Image.Input(
                    "foreground",
                    optional=True,
                    tooltip="How the foreground shall look; it need not be cut out, and only its middle square is "
                    "seen. Not connected: the null image of the training, which leaves the look to the prompt.",
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="How the background shall look. Not connected: the null image of the training.",
                ),
                strength("foreground"),
                strength("background"),
            ],
            outputs=[
                ExemplarsSocket.Output(
                    display_name="exemplars", tooltip="For Depth Compose, or for Soft Guidance alone."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        cnc: CnC,
        clip_vision: ClipVision,
        foreground_strength: float,
        background_strength: float,
        foreground: Tensor | None = None,
        background: Tensor | None = None,
    ) -> io.NodeOutput:
        """Embed and fuse."""
        return io.NodeOutput(
            make_exemplars(
                cnc.global_fuser, clip_vision, foreground, background, foreground_strength, background_strength
            )
        )
