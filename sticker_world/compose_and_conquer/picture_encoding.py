"""What the frozen models make of a folder of pictures, kept on disk: latents, contexts of captions, CLIP embeddings."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...core.clip.comfy.vision import FolderClipVision
from ...core.compose_and_conquer.comfy.frozen import FrozenCheckpoint
from ...core.weights.folders import WEIGHTS
from ..training.prepared import Rows, prepare
from .picture_folder import (
    BACKGROUND_DEPTHS,
    BACKGROUNDS,
    CAPTIONS,
    FOREGROUND_DEPTHS,
    PICTURES,
    PictureFolder,
    PictureFolderError,
)

AT_ONCE = 8
TOKENS = 77


@dataclass(frozen=True)
class PictureBatch:
    """What a training step needs; depths and masks are (b 1 H W) in 0..1, or None where they are not trained with.

    Attributes:
        latents: of the pictures (b 4 h w).
        contexts: of the captions (b 77 d).
        foreground: depth of the foreground alone.
        background: depth of the picture without its foreground.
        mask: the foreground.
        looks: CLIP's embeddings of the whole picture and of the background (b 2 d), as published.
    """

    latents: Tensor
    contexts: Tensor
    foreground: Tensor | None
    background: Tensor | None
    mask: Tensor | None
    looks: Tensor | None


@dataclass(frozen=True)
class EncodedPictures:
    """A folder with what the frozen models make of it, memory-mapped.

    Attributes:
        folder: the files.
        latents: (n 4 h w).
        contexts: (n 77 d).
        looks: (n 2 d), or None.
        no_caption: context of the empty caption (1 77 d).
    """

    folder: PictureFolder
    latents: np.ndarray
    contexts: np.ndarray
    looks: np.ndarray | None
    no_caption: Tensor

    def take(self, rows: np.ndarray, *, depths: bool, looks: bool) -> PictureBatch:
        """Some of the pictures, with what a stage trains with."""
        return PictureBatch(
            latents=torch.from_numpy(self.latents[rows]).float(),
            contexts=torch.from_numpy(self.contexts[rows]).float(),
            foreground=self.folder.depths(FOREGROUND_DEPTHS, rows) if depths else None,
            background=self.folder.depths(BACKGROUND_DEPTHS, rows) if depths else None,
            mask=self.folder.masks(rows) if looks else None,
            looks=torch.from_numpy(self.looks[rows]).float() if looks else None,
        )


def encode_pictures(
    pictures: PictureFolder, checkpoint: FrozenCheckpoint, checkpoint_file: Path, clip_folder: Path | None, folder: Path
) -> EncodedPictures:
    """Encode every picture that is not encoded yet.

    Args:
        pictures: the files.
        checkpoint: its autoencoder and text encoder are used.
        checkpoint_file: where it comes from; another file encodes anew.
        clip_folder: CLIP in the Hugging Face layout whose embeddings the global fuser reads; None where none does.
        folder: keeps the arrays.

    Raises:
        PictureFolderError: there is no CLIP in its folder.
    """

    def make(name: str, kinds: Iterable[str], model: Path, shape: tuple[int, ...], rows: Rows) -> np.ndarray:
        files = [*(path for kind in kinds for path in pictures.files[kind]), model]
        made_of = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        key = hashlib.sha256(repr((pictures.size, made_of)).encode()).hexdigest()
        return prepare(folder / f"{name}.npy", key, (len(pictures), *shape), rows, rows_at_once=AT_ONCE)

    def latents(rows: range) -> np.ndarray:
        return checkpoint.encode(pictures.pictures(PICTURES, rows)).numpy()

    def contexts(rows: range) -> np.ndarray:
        return checkpoint.read(pictures.captions(rows)).numpy()

    side, width = pictures.size // 8, checkpoint.config.context_dim
    arrays = {
        "latents": make("latents", (PICTURES,), checkpoint_file, (4, side, side), latents),
        "contexts": make("contexts", (CAPTIONS,), checkpoint_file, (TOKENS, width), contexts),
    }
    looks = None
    if clip_folder is not None:
        weights = clip_folder / WEIGHTS
        if not weights.is_file():
            raise PictureFolderError(
                f"There is no {WEIGHTS} in {clip_folder}. Give the folder of a CLIP in the Hugging Face layout, for SD "
                "1.5 that of clip-vit-large-patch14, in --clip-vision."
            )
        clip = FolderClipVision(clip_folder)

        @torch.no_grad()
        def embed(rows: range) -> np.ndarray:
            seen = torch.cat([pictures.pictures(kind, rows) for kind in (PICTURES, BACKGROUNDS)])
            embedded = clip.encode_image(rearrange(seen, "b c h w -> b h w c")).image_embeds.float().cpu()
            return rearrange(embedded, "(k b) d -> b k d", k=2).numpy()

        width = embed(range(1)).shape[-1]
        looks = make("looks", (PICTURES, BACKGROUNDS), weights, (2, width), embed)
    return EncodedPictures(pictures, looks=looks, no_caption=checkpoint.read([""]), **arrays)
