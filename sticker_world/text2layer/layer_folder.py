"""Layers out of a folder of a user's own pictures, as the node Split Layers writes them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..compose_and_conquer.picture_folder import (
    CAPTIONS,
    PICTURES,
    SUFFIXES,
    TEXT,
    PictureFolder,
    PictureFolderError,
    files_by_name,
)

FOREGROUND, BACKGROUND, MASK = "foreground", "background", "mask"
KINDS = (BACKGROUND, FOREGROUND, MASK, CAPTIONS)
FAINT = 1e-4  # share of the foreground below which its colour is not known; far below one step of 8 bits


@dataclass(frozen=True)
class LayerFolder:
    """Layers with their captions, matched by file name without suffix."""

    folder: PictureFolder

    def __len__(self) -> int:
        return len(self.folder)

    def stacks(self, rows: np.ndarray | range) -> np.ndarray:
        """Foreground, background and mask of the pictures' middle squares: uint8 (n h w 7)."""
        return (rearrange(self.layers(rows), "n c h w -> n h w c") * 255).round().byte().numpy()

    def layers(self, rows: np.ndarray | range) -> Tensor:
        """The same in 0..1, (n 7 h w)."""
        with ThreadPoolExecutor() as pool:
            return torch.stack(list(pool.map(lambda row: self._layers(int(row)), rows)))

    def _layers(self, row: int) -> Tensor:
        foreground, background, mask = (self.folder.whole(kind, row) for kind in (FOREGROUND, BACKGROUND, MASK))
        mask = mask.mean(0, keepdim=True)
        # Weighted by the mask, so that what fills the rest does not bleed into the edges when they are resized.
        share = F.interpolate(mask[None], foreground.shape[1:], mode="bilinear", antialias=True)[0]
        colour, share = self.folder.middle(torch.cat([foreground * share, share])).split((3, 1))
        colour = torch.where(share > FAINT, colour / share.clamp(min=FAINT), 0.0).clamp(0, 1)
        return torch.cat([colour, self.folder.middle(background), self.folder.middle(mask)])


def open_layer_folder(folder: Path, size: int) -> LayerFolder:
    """Find the files of a folder.

    Args:
        folder: has the sub-folders foreground, background, mask and captions; a file of the same name in each of them.
        size: pixels of the square that training sees; a multiple of 64.

    Raises:
        PictureFolderError: a sub-folder or a file is missing, or the size is wrong.
    """
    if size < 64 or size % 64:
        raise PictureFolderError(f"The size is {size}; expected a multiple of 64 pixels. Give another --size.")
    if missing := [kind for kind in KINDS if not (folder / kind).is_dir()]:
        raise PictureFolderError(
            f"{folder} has no sub-folder {' and no '.join(missing)}; expected {', '.join(KINDS)}. The node Split "
            "Layers writes them."
        )
    found = {kind: files_by_name(folder / kind, (TEXT,) if kind == CAPTIONS else SUFFIXES) for kind in KINDS}
    names = tuple(sorted(found[MASK]))
    if not names:
        raise PictureFolderError(f"There are no pictures in {folder / MASK}; expected {', '.join(SUFFIXES)}.")
    for kind in KINDS:
        if lost := [name for name in names if name not in found[kind]]:
            raise PictureFolderError(
                f"{len(lost)} of {len(names)} masks have no file in {folder / kind}, {lost[0]} first. Make them, or "
                "take these masks out."
            )
    files = {kind: tuple(found[kind][name] for name in names) for kind in KINDS}
    return LayerFolder(PictureFolder(names, files | {PICTURES: files[BACKGROUND]}, size))
