"""Looks of reference pictures in the graph."""

from torch import Tensor

from ...core.comfy.types import ClipVision
from ...core.compose_and_conquer.comfy.exemplars import make_exemplars
from ...core.compose_and_conquer.comfy.files import CnC
from ..api import CnC as CnCSocket
from ..api import Exemplars as ExemplarsSocket
from ..api import io
from ..inputs import category_of


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
                    tooltip="From Load CLIP Folder, what the fuser was trained with: clip-vit-large-patch14 for the "
                    "published file, sticker_world for the embedded one. Another is refused.",
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
