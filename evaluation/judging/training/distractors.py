"""Stickers that Sticker World does not have, in two parts: for training judges, and for asking them afterwards."""

from functools import cache
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent.parent / "distractors"
TRAINING, CALIBRATION = "training", "calibration"


@cache
def distractors(part: str) -> tuple[str, ...]:
    """Names of a part's stickers."""
    return tuple(sorted(path.stem for path in (FOLDER / part).glob("*.webp")))


@cache
def distractor(part: str, name: str) -> Image.Image:
    """A sticker, premultiplied as `sticker_world.world.scene.cut` takes it."""
    return Image.open(FOLDER / part / f"{name}.webp", formats=["WEBP"]).convert("RGBA").convert("RGBa")
