"""What Edit Picture in Layers writes on the source prompt's entries, and takes off them in a run.

These entries themselves never rule a step. Every attribute becomes an option of its name, such as
"stagecraft_free_mask"; see `core.comfy.entries`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...comfy.entries import OnEntry


@dataclass(frozen=True)
class SourceEntry(OnEntry):
    """On all of them.

    Attributes:
        source: 1.
    """

    NODE: ClassVar[str] = "Edit Picture in Layers"

    source: int = 1


@dataclass(frozen=True, eq=False)
class EditEntry(OnEntry):
    """On the first of them.

    Attributes:
        free_mask: (h w) at the picture's resolution, 1 where the picture may change.
        keep_mask: (h w), share of the inverted noise.
        keeps_noise: whether an edit keeps some where it paints, 1 or 0.
        refinements: of the inversion, see `invert`.
    """

    NODE: ClassVar[str] = "Edit Picture in Layers"

    free_mask: Tensor
    keep_mask: Tensor
    keeps_noise: int
    refinements: int
