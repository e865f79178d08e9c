"""Layers in files of painting programs: saved, and opened again."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ...core.comfy.model_folders import Fingerprint, fingerprint
from ...core.layers.comfy import layer_file_names, load_layers, require_layer_file, save_layers
from ...core.layers.files import require_format
from ...core.layers.layered_image import LayeredImageError, from_layers
from ..api import Layers, io, ui
from ..inputs import category_of, file_choice, refusal
from .composite import layered_outputs, layered_values


class StageSaveLayers(io.ComfyNode):
    """Layers -> files of painting programs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageSaveLayers",
            display_name="Save Layers",
            category=category_of(__name__),
            description="Saves layers, named and in order, as a Photoshop document, as OpenRaster (Krita, GIMP) and as "
            "one PNG each, beside a PNG of the whole picture that carries the workflow.",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                Layers.Input("layers", tooltip="What to save. More layers make larger files."),
                io.String.Input(
                    "filename_prefix",
                    default="layers/Stagecraft",
                    tooltip="Folder and beginning of the files' names in ComfyUI's output folder, as in Save Image; "
                    "%date:yyyy-MM-dd% and such are filled in.",
                ),
                io.Boolean.Input(
                    "psd",
                    default=True,
                    tooltip="On: a Photoshop document, which most painting programs open; needs the package psd-tools. "
                    "Off: none.",
                ),
                io.Boolean.Input(
                    "openraster",
                    default=False,
                    tooltip="On: an OpenRaster file (.ora), for Krita, GIMP, MyPaint and others. Off: none.",
                ),
                io.Boolean.Input(
                    "pngs",
                    default=True,
                    tooltip="On: one PNG for each layer, all of the canvas' size and with straight colour, so that "
                    "they lie in place over each other. Off: only the whole picture's.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="files", tooltip="Names of the files in the output folder, one per line.")
            ],
        )

    @classmethod
    def validate_inputs(cls, psd: bool | None) -> bool | str:
        """Refuse a Photoshop document before anything runs where the package for it is missing."""
        return (refusal(partial(require_format, ".psd"), LayeredImageError) if psd else None) or True

    @classmethod
    def execute(
        cls,
        layers: Mapping[str, Any],
        filename_prefix: str,
        psd: bool,
        openraster: bool,
        pngs: bool,
    ) -> io.NodeOutput:
        """Save."""
        suffixes = [suffix for suffix, wanted in ((".psd", psd), (".ora", openraster)) if wanted]
        saved = save_layers(from_layers(layers), filename_prefix, suffixes, pngs=pngs, hidden=cls.hidden)
        shown = [ui.SavedResult(name, saved.subfolder, io.FolderType.output) for name in saved.pictures]
        return io.NodeOutput("\n".join(saved.files), ui=ui.SavedImages(shown))


class StageLoadLayers(io.ComfyNode):
    """Photoshop document or OpenRaster file -> layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLoadLayers",
            display_name="Load Layers",
            category=category_of(__name__),
            description="Opens a Photoshop document or an OpenRaster file from ComfyUI's input folder, for example one "
            "of Save Layers that was painted on.",
            inputs=[
                file_choice(
                    "file",
                    layer_file_names(),
                    "input or models/layered_pictures",
                    tooltip="A .psd or .ora file in ComfyUI's input folder or in models/layered_pictures; "
                    'through a link also "name [output]" for one in the output folder, as in Load Image. More and '
                    "larger layers take more memory. Layers need plain pixels and the normal blend mode.",
                )
            ],
            outputs=layered_outputs(),
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        """Refuse a file that is not there before anything runs."""
        return (refusal(partial(require_layer_file, file), LayeredImageError) if file is not None else None) or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> Fingerprint:
        """Run again when the file has changed."""
        try:
            return fingerprint(require_layer_file(file)) if file else ()
        except LayeredImageError:
            return ()

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """Open it."""
        return io.NodeOutput(*layered_values(load_layers(file)))
