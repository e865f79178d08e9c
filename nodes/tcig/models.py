"""The models of TCIG's first stage in the graph."""

from ...core.clip.comfy.vision import EMBEDDED as EMBEDDED_CLIP
from ...core.clip.comfy.vision import clip_vision_names, require_clip_vision
from ...core.tcig.comfy.models import (
    EMBEDDED,
    checkpoint_names,
    clip_version,
    conversion_version,
    convert_checkpoint,
    load_clip_by_name,
    load_vqgan_by_name,
    require_vqgan,
    vqgan_names,
    vqgan_version,
)
from ...core.tcig.vqgan import VQGANFileError
from ..api import VQGAN, Clip, io
from ..inputs import category_of, file_choice


class StageVQGANLoader(io.ComfyNode):
    """Folder or file -> a VQGAN."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageVQGANLoader",
            display_name="Load VQGAN",
            category=category_of(__name__),
            description="Loads a VQGAN, which paints TCIG's drafts from a grid of codes.",
            inputs=[
                file_choice(
                    "vqgan_name",
                    vqgan_names(),
                    "models/vqgan",
                    preferred=EMBEDDED,
                    tooltip="Folder in models/vqgan in diffusers' layout, or a safetensors file with the names of "
                    "taming-transformers. A larger one paints more kinds of things and takes longer; a smaller one, "
                    "such as the pack's own training makes, is quick and knows a small world.",
                )
            ],
            outputs=[VQGAN.Output(display_name="vqgan", tooltip="For TCIG Draft.")],
        )

    @classmethod
    def validate_inputs(cls, vqgan_name: str | None) -> bool | str:
        """Refuse one that is gone before anything runs; a connected name is checked when it runs."""
        try:
            if vqgan_name is not None:
                require_vqgan(vqgan_name)
        except VQGANFileError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, vqgan_name: str | None) -> int:
        """Load it again when it was replaced."""
        return 0 if vqgan_name is None else vqgan_version(vqgan_name)

    @classmethod
    def execute(cls, vqgan_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_vqgan_by_name(vqgan_name))


class StageVQGANConvert(io.ComfyNode):
    """Published checkpoint -> a folder that Load VQGAN opens."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageVQGANConvert",
            display_name="Convert VQGAN Checkpoint",
            category=category_of(__name__),
            description="Writes a VQGAN checkpoint of taming-transformers as a folder in diffusers' layout into "
            "models/vqgan. Only tensors are read; nothing in the pickled file is run.",
            is_output_node=True,
            inputs=[
                file_choice(
                    "checkpoint",
                    checkpoint_names(),
                    "models/vqgan",
                    tooltip="Pickled file in models/vqgan (.ckpt, .pt, .pth, .bin). Its .yaml is not needed. It stays "
                    "as it is; afterwards it may be deleted.",
                )
            ],
            outputs=[
                io.String.Output(
                    display_name="vqgan_name",
                    tooltip="Name of the new folder. Reload the page to see it in Load VQGAN.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None) -> tuple[bool, int]:
        """Convert again when the checkpoint was replaced or the result is gone."""
        return (False, 0) if checkpoint is None else conversion_version(checkpoint)

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        """Convert it."""
        name, sentence = convert_checkpoint(checkpoint)
        return io.NodeOutput(name, ui={"text": (sentence,)})


class StageCLIPLoader(io.ComfyNode):
    """Folder -> a CLIP with both towers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageCLIPLoader",
            display_name="Load CLIP Folder",
            category=category_of(__name__),
            description="Loads a whole CLIP in the Hugging Face layout, the side that reads texts and the side that "
            "sees pictures. ComfyUI's own CLIP objects hold one of the two.",
            inputs=[
                file_choice(
                    "folder",
                    clip_vision_names(),
                    "models/hf_clip",
                    preferred=EMBEDDED_CLIP,
                    tooltip="Folder under models/hf_clip with config.json, model.safetensors and the tokenizer. "
                    "sticker_world knows the embedded models' world; a larger CLIP knows more and takes longer.",
                )
            ],
            outputs=[Clip.Output(display_name="clip", tooltip="For TCIG Draft.")],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        """Refuse a folder that is gone before anything runs; a connected name is checked when it runs."""
        try:
            if folder is not None:
                require_clip_vision(folder)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None) -> int:
        """Load it again when it was replaced."""
        return 0 if folder is None else clip_version(folder)

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_clip_by_name(folder))
