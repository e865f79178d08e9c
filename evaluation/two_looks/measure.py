"""Which look a part of a picture has: nine statistics of colours and edges, and a linear discriminant between three.

It takes no part in any training. `python commands/launcher.py evaluation.two_looks.measure` fits it on drawn scenes, as
they are and as the embedded autoencoder gives them back, and writes `measure.json` with its accuracy on others.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from ...core.layout.masks import Box
from ...sticker_world.checkpoint.shipped_weights import load_autoencoder
from ...sticker_world.looks.drawing import BLOCK, NEON, PIXELS, draw_neon, draw_pixels, draw_plain, in_look
from ...sticker_world.shipped import CHECKPOINT_FILE
from ...sticker_world.world.scene import Scene, make_scene

FILE = Path(__file__).parent / "measure.json"
PLAIN = "none"
LOOKS = {PLAIN: draw_plain, NEON: draw_neon, PIXELS: draw_pixels}
SERIES = 20_991  # of scenes that no training draws
FITTED, ASKED = 60, 40  # scenes; the accuracy is on the latter
LEAST = 0.3  # a sticker's longer side over the canvas
SHRINKAGE = 0.1  # of the pooled covariance of standardised statistics towards no correlation
DARK, BRIGHT, PURE = 0.22, 0.6, 0.5  # of value, value and saturation in 0..1
STATISTICS = (
    "value",
    "spread of value",
    "dark",
    "saturation",
    "bright and pure",
    "dark beside bright",
    "edges",
    "edges on the grid of blocks",
    "fine detail",
)


def statistics(picture: np.ndarray, box: Box) -> np.ndarray:
    """Statistics of what lies in a box of a picture.

    Args:
        picture: uint8 (h w 3), whole: blocks lie on the grid of the canvas.
        box: x0, y0, x1, y1 in 0..1.

    Returns:
        float64 (9), in the order of `STATISTICS`.
    """
    height, width = picture.shape[:2]
    left, top = round(box[0] * width), round(box[1] * height)
    right, bottom = round(box[2] * width), round(box[3] * height)
    part = picture[top:bottom, left:right].astype(np.float64) / 255
    value, low = part.max(-1), part.min(-1)
    saturation = (value - low) / np.maximum(value, 1e-3)
    dark, bright = value < DARK, (value > BRIGHT) & (saturation > PURE)
    grey = part.mean(-1)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    columns, rows = (np.arange(left + 1, right) % BLOCK) == 0, (np.arange(top + 1, bottom) % BLOCK) == 0
    on_grid = across[:, columns].mean() + down[rows].mean()
    elsewhere = across[:, ~columns].mean() + down[~rows].mean()
    smooth = grey[1:-1, 1:-1] - (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    near = BLOCK // 2
    beside = bright[:, near:] & dark[:, :-near] | bright[:, :-near] & dark[:, near:]
    found = (
        value.mean(),
        value.std(),
        dark.mean(),
        saturation.mean(),
        bright.mean(),
        beside.mean(),
        np.log(across.mean() + down.mean() + 1e-3),
        np.log((on_grid + 1e-3) / (elsewhere + 1e-3)),
        np.log(np.abs(smooth).mean() + 1e-4),
    )
    return np.array(found)


@dataclass(frozen=True)
class LookMeasure:
    """A linear discriminant of `statistics`.

    Attributes:
        names: of the looks.
        mean: of each statistic.
        deviation: of each statistic.
        weights: (looks statistics) of standardised statistics.
        bias: (looks).
        accuracy: share of things in scenes of neither fit nor training whose look is named, by what was looked at.
    """

    names: Sequence[str]
    mean: Sequence[float]
    deviation: Sequence[float]
    weights: Sequence[Sequence[float]]
    bias: Sequence[float]
    accuracy: dict[str, float]

    def of(self, picture: np.ndarray, box: Box) -> dict[str, float]:
        """How near a part of a picture is to each look: shares that add up to 1. See `statistics`."""
        return dict(zip(self.names, self._shares(statistics(picture, box)[None])[0].tolist(), strict=True))

    def named(self, found: np.ndarray) -> list[str]:
        """The nearest look of each row of statistics (n 9)."""
        return [self.names[index] for index in self._shares(found).argmax(1)]

    def _shares(self, found: np.ndarray) -> np.ndarray:
        standard = (found - np.array(self.mean)) / np.array(self.deviation)
        logits = standard @ np.array(self.weights).T + np.array(self.bias)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    @classmethod
    def fit(cls, found: np.ndarray, looks: Sequence[str]) -> "LookMeasure":
        """Fit Fisher's discriminant to rows of statistics (n 9) of known looks, each look weighing the same."""
        mean, deviation = found.mean(0), found.std(0)
        standard, looks = (found - mean) / deviation, np.array(looks)
        centres = np.stack([standard[looks == name].mean(0) for name in LOOKS])
        within = np.mean([np.cov(standard[looks == name].T) for name in LOOKS], axis=0)
        inverse = np.linalg.inv((1 - SHRINKAGE) * within + SHRINKAGE * np.eye(len(mean)))
        weights = centres @ inverse
        bias = -0.5 * (weights * centres).sum(1)
        rounded = (np.round(each, 6).tolist() for each in (mean, deviation, weights, bias))
        return cls(tuple(LOOKS), *rounded, {})

    @classmethod
    @cache
    def load(cls) -> "LookMeasure":
        """The committed one."""
        return cls(**json.loads(FILE.read_text()))


def examples(scenes: range) -> Iterator[tuple[str, str, np.ndarray, Box]]:
    """What was looked at, the look, the picture and a box in it, of scenes with one sticker each."""
    autoencoder = load_autoencoder(CHECKPOINT_FILE)
    for index in tqdm(scenes, "scenes", mininterval=10):
        scene = next(found for k in range(1000) if _is_large(found := make_scene(SERIES, 1000 * index + k, counts=ONE)))
        box = scene.objects[0].box
        for look, draw in LOOKS.items():
            picture = in_look(scene, draw)
            yield "as drawn", look, picture, box
            batch = rearrange(torch.from_numpy(picture).float() / 255, "h w c -> 1 c h w")
            with torch.no_grad():
                decoded = autoencoder.decode(autoencoder.encode(batch))[0].clamp(0, 1)
            yield "by the autoencoder", look, np.round(255 * decoded.numpy()).astype(np.uint8).transpose(1, 2, 0), box
        for elsewhere in free_corners([box]):
            yield "backgrounds", PLAIN, scene.image, elsewhere


ONE = (0.0, 1.0)  # sticker in each scene


def _is_large(scene: Scene) -> bool:
    x0, y0, x1, y1 = scene.objects[0].box
    return max(x1 - x0, y1 - y0) >= LEAST


def free_corners(boxes: Sequence[Box], side: float = 0.4) -> list[Box]:
    """Squares in the corners of the canvas that no box reaches."""
    corners = [(x, y, x + side, y + side) for y in (0.0, 1 - side) for x in (0.0, 1 - side)]

    def is_free(a: Box) -> bool:
        return all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes)

    return [corner for corner in corners if is_free(corner)]


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, ask and write; returns the exit status."""
    known = [(what, look, statistics(*shown)) for what, look, *shown in examples(range(FITTED))]
    measure = LookMeasure.fit(np.stack([found for _, _, found in known]), [look for _, look, _ in known])
    asked: dict[str, list[bool]] = {}
    for what, look, *shown in examples(range(FITTED, FITTED + ASKED)):
        asked.setdefault(what, []).append(measure.named(statistics(*shown)[None]) == [look])
    accuracy = {what: round(float(np.mean(right)), 4) for what, right in asked.items()}
    FILE.write_text(json.dumps(asdict(measure) | {"accuracy": accuracy}, indent=1) + "\n")
    print(accuracy)
    return 0
