"""What pictures are measured with: a segmenter and a CLIP, if nothing is said the judges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.clip.small_clip import SmallCLIP
from ...core.scores.metrics import clip_similarity
from ...core.segmentation.segmenter import Segmenter
from ...sticker_world import shipped
from ...sticker_world.world.scene import Scene, make_scene
from ..sets.balanced import balanced_indices
from ..sets.sets import exactly
from ..summary.kernel_distance import KID_PICTURES, kid
from .judges import CLIP_FOLDER, SEGMENTER_FOLDER

REAL_SEED = 7_005
REAL_SCENES = 300  # per number of objects: what KID compares with
BATCH = 32  # pictures per pass through CLIP


def to_images(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures (h w 3) of one size -> float32 (b h w 3) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).float() / 255


def real_scenes(objects: int, number: int) -> list[Scene]:
    """Held-out scenes with this number of objects, the same ones each time, with every concept equally often."""
    places = balanced_indices(REAL_SEED, objects, number)
    return [make_scene(REAL_SEED, index, held_out=True, counts=exactly(objects)) for index in places]


@dataclass
class Yardsticks:
    """A segmenter and a CLIP, loaded once.

    Attributes:
        segmenter: says what is where.
        clip: its picture and text features.
        real_features: image features of real scenes by number of objects, drawn when first asked for.
    """

    segmenter: Segmenter
    clip: SmallCLIP
    real_features: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def load(cls, segmenter: Path = SEGMENTER_FOLDER, clip: Path = CLIP_FOLDER) -> "Yardsticks":
        """Open both models; if nothing is said, the judges.

        Raises:
            SegmenterError: no usable segmenter folder.
            FileNotFoundError: no usable CLIP folder.
        """
        return cls(Segmenter.load(segmenter), SmallCLIP.load(clip))

    @classmethod
    def shipped(cls) -> "Yardsticks":
        """Open the networks that workflows use, which judge nothing."""
        return cls.load(shipped.SEGMENTER_FOLDER, shipped.CLIP_FOLDER)

    @torch.no_grad()
    def image_features(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Unit vectors (b d) of uint8 pictures (h w 3)."""
        starts = range(0, len(pictures), BATCH)
        return torch.cat([self.clip.embed_images(to_images(pictures[start : start + BATCH])) for start in starts])

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (b d) of prompts."""
        return self.clip.embed_texts(list(prompts))

    def labels(self, picture: np.ndarray) -> np.ndarray:
        """Class per pixel (h w) of one uint8 picture (h w 3)."""
        return self.segmenter.labels(to_images([picture]))[0].numpy()

    @torch.no_grad()
    def segmenter_features(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """What each stage of the segmenter's encoder sees in uint8 pictures (h w 3): (b c h w) each."""
        return self.segmenter.features(to_images(pictures))

    def kid(self, features: Tensor, objects: int) -> float | None:
        """KID of image features (b d) against real scenes with this number of objects; None for too few pictures."""
        return kid(features, self.real(objects)) if len(features) >= KID_PICTURES else None

    def real(self, objects: int) -> Tensor:
        """Image features (b d) of real scenes with this number of objects."""
        if objects not in self.real_features:
            pictures = [scene.image for scene in real_scenes(objects, REAL_SCENES)]
            self.real_features[objects] = self.image_features(pictures)
        return self.real_features[objects]


def image_scores(
    yardsticks: Yardsticks, features: Tensor, prompts: Sequence[str], objects: int | None
) -> dict[str, float | None]:
    """CLIP similarity and KID of a set of pictures.

    Args:
        yardsticks: the judges.
        features: (b d), of the pictures.
        prompts: one per picture.
        objects: how many each real scene to compare with holds; None leaves KID out.
    """
    return {
        "clip": clip_similarity(features, yardsticks.text_features(prompts)) if prompts else None,
        "kid": None if objects is None else yardsticks.kid(features, objects),
    }
