"""Depth disentanglement triplets out of a folder of a user's own pictures, which other tools have taken apart.

Compose and Conquer (Lee et al. 2024, arXiv 2401.09048) makes them with a saliency model, an inpainting model and a
depth model. Here they are files, so that any such models do; nothing is downloaded.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...core.compose_and_conquer.depth_pair import stretch
from ...core.drawing.formats import FORMATS
from ...core.layout.masks import is_same_aspect

PICTURES, CAPTIONS, MASKS, BACKGROUNDS = "pictures", "captions", "masks", "backgrounds"
FOREGROUND_DEPTHS, BACKGROUND_DEPTHS = "foreground_depths", "background_depths"
FOR_ALL = (PICTURES, CAPTIONS)
FOR_DEPTHS = (FOREGROUND_DEPTHS, BACKGROUND_DEPTHS)
FOR_LOOKS = (MASKS, BACKGROUNDS)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
TEXT = ".txt"


class PictureFolderError(ValueError):
    """A folder that makes no triplets; the message says which file is missing or wrong."""


@dataclass(frozen=True)
class PictureFolder:
    """Pictures with their captions, depths, masks and backgrounds, matched by file name without suffix.

    Attributes:
        names: of the pictures, sorted.
        files: path of every file: sub-folder -> one for each name.
        size: pixels of the square that is cut out of everything.
    """

    names: tuple[str, ...]
    files: dict[str, tuple[Path, ...]]
    size: int

    def __len__(self) -> int:
        return len(self.names)

    def captions(self, rows: range) -> list[str]:
        """Captions, without the line breaks."""
        return [" ".join(self.files[CAPTIONS][row].read_text(encoding="utf-8").split()) for row in rows]

    def pictures(self, kind: str, rows: range) -> Tensor:
        """Pictures or backgrounds: (n 3 h w) in 0..1."""
        return self._squares(kind, rows)

    def depths(self, kind: str, rows: np.ndarray) -> Tensor:
        """Depths of foreground or background, every one stretched by itself: (n 1 h w) in 0..1."""
        return stretch(reduce(self._squares(kind, rows), "n c h w -> n 1 h w", "mean"))

    def masks(self, rows: np.ndarray) -> Tensor:
        """Foregrounds: (n 1 h w), 0 or 1."""
        return (reduce(self._squares(MASKS, rows), "n c h w -> n 1 h w", "mean") >= 0.5).float()

    def _squares(self, kind: str, rows: range | np.ndarray) -> Tensor:
        with ThreadPoolExecutor() as pool:
            return torch.stack(list(pool.map(lambda row: self._square(kind, int(row)), rows)))

    def _square(self, kind: str, row: int) -> Tensor:
        return self.middle(self.whole(kind, row))

    def whole(self, kind: str, row: int) -> Tensor:
        """One file as it is: (3 h w) in 0..1.

        Raises:
            PictureFolderError: it cannot be read, or is not of its picture's shape.
        """
        path, picture = self.files[kind][row], self.files[PICTURES][row]
        try:
            with Image.open(picture, formats=FORMATS) as image:
                expected = image.size
            with Image.open(path, formats=FORMATS) as image:
                found, values = image.size, _values(image)
        except (UnidentifiedImageError, OSError) as error:
            raise PictureFolderError(f"{path} or {picture} cannot be read ({error}). Save it again.") from error
        if not is_same_aspect(found[1], found[0], expected[1], expected[0]):
            raise PictureFolderError(
                f"{path} has {found[0]} x {found[1]} pixels, which is not the shape of {picture} ({expected[0]} x "
                f"{expected[1]}). Make both with the same aspect ratio."
            )
        return values

    def middle(self, values: Tensor) -> Tensor:
        """The shorter side becomes `size`, then the middle is cut out, as published: (c h w) -> (c size size)."""
        height, width = values.shape[-2:]
        short = min(height, width)
        inside = (max(self.size, round(height * self.size / short)), max(self.size, round(width * self.size / short)))
        fitted = F.interpolate(values[None], inside, mode="bilinear", antialias=True)[0].clamp(0, 1)
        top, left = ((length - self.size) // 2 for length in inside)
        return fitted[:, top : top + self.size, left : left + self.size]


def open_pictures(folder: Path, size: int, *, depths: bool, looks: bool) -> PictureFolder:
    """Find the files of a folder.

    Args:
        folder: has the sub-folders pictures and captions, foreground_depths and background_depths for `depths`, masks
            and backgrounds for `looks`; a file of the same name, whatever its suffix, in each of them.
        size: pixels of the square that training sees; a multiple of 64.
        depths: whether the local fuser is trained.
        looks: whether the global fuser is trained.

    Raises:
        PictureFolderError: a sub-folder or a file is missing, or the size is wrong.
    """
    if size < 64 or size % 64:
        raise PictureFolderError(f"The size is {size}; expected a multiple of 64 pixels. Give another --size.")
    kinds = (*FOR_ALL, *(FOR_DEPTHS if depths else ()), *(FOR_LOOKS if looks else ()))
    if missing := [kind for kind in kinds if not (folder / kind).is_dir()]:
        raise PictureFolderError(
            f"{folder} has no sub-folder {' and no '.join(missing)}; expected {', '.join(kinds)}. Make them first."
        )
    found = {kind: files_by_name(folder / kind, (TEXT,) if kind == CAPTIONS else SUFFIXES) for kind in kinds}
    names = tuple(sorted(found[PICTURES]))
    if not names:
        raise PictureFolderError(f"There are no pictures in {folder / PICTURES}; expected {', '.join(SUFFIXES)}.")
    for kind in kinds:
        if lost := [name for name in names if name not in found[kind]]:
            raise PictureFolderError(
                f"{len(lost)} of {len(names)} pictures have no file in {folder / kind}, {lost[0]} first. Make them, or "
                f"take these pictures out of {PICTURES}."
            )
    return PictureFolder(names, {kind: tuple(found[kind][name] for name in names) for kind in kinds}, size)


def files_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files with one of these suffixes, by their names without it."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}


def _values(image: Image.Image) -> Tensor:
    """Any picture -> (3 h w) in 0..1; depths may have 16 bits or be floating point."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image, dtype=np.float32)
        span = grey.max() - grey.min()
        values = np.repeat(((grey - grey.min()) / (span or 1.0))[..., None], 3, axis=-1)
    else:
        values = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return rearrange(torch.from_numpy(values), "h w c -> c h w")
