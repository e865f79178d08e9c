"""CLIP folders in the Hugging Face layout as ComfyUI's CLIP_VISION, of any number of layers.

ComfyUI's own loader knows the published towers by their numbers of layers, so it does not know a small one.
"""

import json
import tempfile
from pathlib import Path

import comfy.clip_vision
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from ...comfy.model_folders import CONFIG, config_folders, with_first
from ...comfy.named_files import NamedFiles
from ...drawing.resizing import resized
from ..small_clip import VOCABULARY

KIND = "hf_clip"  # of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world"
WEIGHTS, PICTURES = "model.safetensors", "preprocessor_config.json"
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

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        vision = {**DEFAULTS, **config.get("vision_config", config)}
        vision["projection_dim"] = config.get("projection_dim", vision["projection_dim"])
        kind = vision.setdefault("model_type", KNOWN)
        if kind != KNOWN:
            raise ValueError(
                f"The folder {folder.name} has no whole CLIP Vision model: {CONFIG} is of a {kind}. Choose the folder "
                "of a CLIP with a vision tower."
            )
        self.is_small = (folder / VOCABULARY).is_file()
        if self.is_small:
            vision |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        elif (folder / PICTURES).is_file():
            seen = json.loads((folder / PICTURES).read_text(encoding="utf-8"))
            vision |= {key: seen[key] for key in ("image_mean", "image_std") if key in seen}
        with tempfile.TemporaryDirectory() as place:  # ComfyUI reads the configuration from a file
            path = Path(place) / CONFIG
            path.write_text(json.dumps(vision), encoding="utf-8")
            super().__init__(str(path))
        weights = {name: weight for name, weight in load_file(folder / WEIGHTS).items() if name.startswith(VISION)}
        missing, _ = self.load_sd(weights)
        if missing:
            raise ValueError(
                f"The folder {folder.name} has no whole CLIP Vision model: {missing[0]} is missing in {WEIGHTS}. "
                "Choose the folder of a CLIP with a vision tower."
            )

    def encode_image(self, image: Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        """Embed pictures (b h w c) in 0..1, their middle squares or, without crop, squeezed to squares."""
        if self.is_small:
            side = min(image.shape[1:3])
            if crop:
                top, left = ((length - side) // 2 for length in image.shape[1:3])
                image = image[:, top : top + side, left : left + side]
            pixels = rearrange(image[..., :3], "b h w c -> b c h w").float()
            pixels = resized(pixels, (self.image_size,) * 2)
            image = rearrange(pixels, "b c h w -> b h w c")
        return super().encode_image(image, crop=crop)


def _folders() -> dict[str, Path]:
    """Name -> folder of every CLIP that has weights, the embedded one first."""
    return with_first(config_folders(KIND, 1, lambda folder: (folder / WEIGHTS).is_file()), EMBEDDED)


CLIP_FOLDERS = NamedFiles(
    KIND,
    ValueError,
    'There is no CLIP folder "{name}"; found: {found}. Put a folder with '
    f"{CONFIG} and {WEIGHTS} into models/{KIND} and choose it in the folder input.",
    folders=_folders,
    embedded=EMBEDDED,
)
load_clip_vision = CLIP_FOLDERS.reader(FolderClipVision)
