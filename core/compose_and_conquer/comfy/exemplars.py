"""Looks of reference pictures as tokens: CLIP Vision's embeddings through Compose and Conquer's global fuser."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...comfy.types import ClipVision
from ...drawing.pictures import check_finite, colours_of
from ...soft_guidance.comfy.tokens import RegionTokens
from ..global_fuser import GlobalFuser

PUBLISHED_WIDTH = 768  # of the embeddings of CLIP ViT-L/14


@dataclass(frozen=True, eq=False)
class Exemplars:
    """Tokens of a foreground's and a background's look, at their strengths.

    Attributes:
        foreground: (b n c), as many rows as there were pictures, or 1.
        background: (b n c).
    """

    foreground: Tensor
    background: Tensor

    def regions(self, mask: Tensor, weight: float = 1.0) -> list[RegionTokens]:
        """Foreground inside a mask (b h w), background outside it; both on both prompts, as published."""
        return [
            RegionTokens(self.foreground, mask, weight=weight),
            RegionTokens(self.background, mask, outside=True, weight=weight),
        ]


def make_exemplars(
    fuser: GlobalFuser | None,
    clip_vision: ClipVision,
    foreground: Tensor | None = None,
    background: Tensor | None = None,
    foreground_strength: float = 1.0,
    background_strength: float = 1.0,
) -> Exemplars:
    """Turn reference pictures into tokens.

    Without a picture the fuser gets a zero embedding, the null image that a tenth of its training had, which gives
    tokens that say little. A strength multiplies the tokens behind the fuser: at 0 they are zero vectors, which still
    take their share of the softmax. Both as published.

    Args:
        fuser: of the loaded file, None where it has none.
        clip_vision: embeds the pictures.
        foreground: (b h w 3) in 0..1; only the middle square is seen.
        background: the same.
        foreground_strength: times the foreground's tokens.
        background_strength: times the background's.

    Raises:
        ValueError: a file without a global fuser, or another kind of CLIP Vision than the fuser was trained with.
    """
    if fuser is None:
        raise ValueError(
            "The loaded CnC file has no global fuser, which turns pictures into tokens. Choose one that has both, such "
            "as a converted cnc_v1, in Load CnC."
        )
    sides = [
        torch.zeros(1, fuser.config.embedding) if picture is None else _embed(clip_vision, picture, fuser)
        for picture in (foreground, background)
    ]
    weight = next(fuser.parameters())
    with torch.no_grad():
        tokens = fuser.eval()(*(side.to(weight) for side in sides))
    return Exemplars(tokens[0].float().cpu() * foreground_strength, tokens[1].float().cpu() * background_strength)


def _embed(clip_vision: ClipVision, pictures: Tensor, fuser: GlobalFuser) -> Tensor:
    """Projected embeddings (b d), not normalised."""
    pictures = check_finite(colours_of(pictures), "A reference picture", "Connect one that shows something")
    embeddings = clip_vision.encode_image(pictures, crop=True)["image_embeds"]
    expected = fuser.config.embedding
    if embeddings.shape[-1] != expected:
        right = (
            "clip-vit-large-patch14 (CLIP ViT-L/14) with Load CLIP Vision"
            if expected == PUBLISHED_WIDTH
            else "the one that belongs to it, for the embedded fuser sticker_world, with Load CLIP Folder"
        )
        raise ValueError(
            f"This CLIP Vision model gives embeddings of width {embeddings.shape[-1]}, but the CnC file was trained "
            f"with {expected}. Load {right}."
        )
    return embeddings
