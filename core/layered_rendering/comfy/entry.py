"""What layered rendering writes on the entries of prompts, and takes off them in a run.

Every attribute becomes an option of its name, such as "stagecraft_visible_mask"; see `core.comfy.entries`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...comfy.entries import OnEntry
from ..vision_guidance import AS_SEEN


@dataclass(frozen=True, eq=False)
class LayerEntry(OnEntry):
    """On every entry of a layer.

    Attributes:
        layer: number that the entries of one layer share.
        visible_mask: (b h w) at the canvas' resolution; the layers' masks are a partition of unity.
        cfg: the layer's own guidance scale; None: the sampler's.
        crop: margin in latent cells around what is seen of the layer; None: it is evaluated on the whole canvas.
    """

    NODE: ClassVar[str] = "Layered Rendering"

    layer: int
    visible_mask: Tensor
    cfg: float | None = None
    crop: int | None = None


@dataclass(frozen=True, eq=False)
class VisionEntry(OnEntry):
    """On the entries of a layer with vision guidance too: delta, how a dynamic one is measured (Eq. 6), or both.

    Of a batch some pictures may have the one and some the other; delta is 0 where it is measured, factors are 0 where
    it is not.

    Attributes:
        own_mask: (b h w) at the canvas' resolution, hidden parts included.
        sides: (2) factors of delta inside and outside.
        inject: one of vision_guidance.INJECTIONS.
        delta: (b c) in the model's latent space; None: all are dynamic.
        words: of a dynamic delta, for each picture the phrase's token positions (m); none where it is not measured.
        factors: of a dynamic delta, its lambda for each picture (b).
        top_k: of a dynamic delta, in latent cells.
        told: for a dynamic delta on a transformer, positions of all words of each picture's caption.
        text_length: and the captions' length in tokens.
        reading: one of vision_guidance.READINGS.
    """

    NODE: ClassVar[str] = "Layered Rendering"

    own_mask: Tensor
    sides: Tensor
    inject: str
    delta: Tensor | None = None
    words: list[Tensor] | None = None
    factors: Tensor | None = None
    top_k: int | None = None
    told: list[Tensor] | None = None
    text_length: int | None = None
    reading: str = AS_SEEN


@dataclass(frozen=True, eq=False)
class GivenPart(OnEntry):
    """On entries of the given prompts for a part of the canvas, whose LoRAs are worn from t0 on too.

    Attributes:
        part: (b h w) at the canvas' resolution; the parts are a partition of unity.
    """

    NODE: ClassVar[str] = "Layered Rendering"

    part: Tensor


@dataclass(frozen=True)
class HandOver(OnEntry):
    """On entries of the given prompts, which rule from t0 on; in trajectories on the layers' entries too.

    Attributes:
        layers_until: share of the run at which the layers hand over.
        trajectories_until: share of the run that every layer is sampled apart.
    """

    NODE: ClassVar[str] = "Layered Rendering"

    layers_until: float | None = None
    trajectories_until: float | None = None
