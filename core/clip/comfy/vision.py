"""CLIP folders in the Hugging Face layout as ComfyUI's CLIP_VISION, of any number of layers.

ComfyUI's own loader knows the published towers by their numbers of layers, so it does not know a small one.
"""

import json
import tempfile
from pathlib import Path

import comfy.clip_vision
from einops import rearrange
from torch import Tensor

from ...comfy.model_folders import config_folders, is_file, with_first
from ...comfy.named_files import NamedFiles
from ...drawing.pictures import colours_of
from ...drawing.resizing import resized
from ...weights.folders import CONFIG, WEIGHTS, ModelFolder
from ..small_clip import VOCABULARY, CLIPFileError, clip_folder

KIND = "hf_clip"  # of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world"
COLOURS = ("image_mean", "image_std")
LARGEST = 2**16  # of a number in a configuration; published towers have less than a tenth
VISION = ("vision_model.", "visual_projection.")
KNOWN = "clip_vision_model"
# Of the Hugging Face layout: what a configuration leaves out if it is the same.
DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}


class FolderClipVision(comfy.clip_vision.ClipVisionModel):
    """ComfyUI's CLIP Vision, from a folder; the small CLIP sees pictures as it did in its training."""

    def __init__(self, path: Path) -> None:
        folder = clip_folder(path)
        folder.require(CONFIG, WEIGHTS)
        vision = _vision_of(folder)
        self.is_small = (path / VOCABULARY).is_file()
        if self.is_small:
            vision |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        else:
            settings = folder.pictures()
            vision |= {key: folder.colours(settings, key, ()) for key in COLOURS if key in settings}
        weights = {name: weight for name, weight in folder.weights().items() if name.startswith(VISION)}
        try:
            with tempfile.TemporaryDirectory() as place:  # ComfyUI reads the configuration from a file
                written = Path(place) / CONFIG
                written.write_text(json.dumps(vision), encoding="utf-8")
                super().__init__(str(written))
            missing, _ = self.load_sd(weights)
        except Exception as error:  # whatever a wrong value does inside
            raise folder.refuse("has a configuration and weights that make no CLIP Vision model", error) from error
        if missing:
            raise folder.refuse(
                f"has no whole CLIP Vision model: {missing[0]} is missing in {WEIGHTS}. Choose the folder of a CLIP "
                "with a vision tower"
            )

    def encode_image(self, image: Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        """Embed pictures (b h w c) in 0..1, their middle squares or, without crop, squeezed to squares."""
        if self.is_small:
            side = min(image.shape[1:3])
            if crop:
                top, left = ((length - side) // 2 for length in image.shape[1:3])
                image = image[:, top : top + side, left : left + side]
            pixels = rearrange(colours_of(image), "b h w c -> b c h w")
            pixels = resized(pixels, (self.image_size,) * 2)
            image = rearrange(pixels, "b c h w -> b h w c")
        return super().encode_image(image, crop=crop)


def _vision_of(folder: ModelFolder) -> dict[str, object]:
    """The configuration of its vision tower, whole."""
    nested = folder.config.get("vision_config", folder.config)
    if not isinstance(nested, dict):
        raise folder.refuse(f"has a {CONFIG} whose vision_config is no object. Copy it again")
    vision = {**DEFAULTS, **nested}
    vision["projection_dim"] = folder.config.get("projection_dim", vision["projection_dim"])
    kind = vision.setdefault("model_type", KNOWN)
    if kind != KNOWN:
        raise folder.refuse(
            f"has no whole CLIP Vision model: {CONFIG} is of a {kind}. Choose the folder of a CLIP with a vision tower"
        )
    for key, usual in DEFAULTS.items():
        value = vision[key]
        if type(value) is not type(usual) or (isinstance(value, int) and not 0 < value <= LARGEST):
            raise folder.refuse(f"has a {CONFIG} with {key} {str(value)[:80]!r}; expected a value such as {usual!r}")
    width, heads = vision["hidden_size"], vision["num_attention_heads"]
    if width % heads:
        raise folder.refuse(f"has a {CONFIG} with {heads} num_attention_heads, which do not divide hidden_size {width}")
    return vision


def _folders() -> dict[str, Path]:
    """Name -> folder of every CLIP that has weights, the embedded one first."""
    return with_first(config_folders(KIND, 1, lambda folder: is_file(folder / WEIGHTS)), EMBEDDED)


CLIP_FOLDERS = NamedFiles(
    KIND,
    CLIPFileError,
    'There is no CLIP folder "{name}"; found: {found}. Put a folder with '
    f"{CONFIG} and {WEIGHTS} into models/{KIND} and choose it in the folder input.",
    folders=_folders,
    embedded=EMBEDDED,
)
load_clip_vision = CLIP_FOLDERS.reader(FolderClipVision)
