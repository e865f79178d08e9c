"""Attention maps as the layout canvas gets them: small, in JSON, with the phrases that they are of."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..drawing.packed_greys import pack_greys, to_levels
from ..layout.masks import resample_by_area
from .heat_maps import scaled_map

FINEST = 96  # cells along the longer side; attention is read on 64 at most for usual pictures


def write_maps(phrases: Sequence[str], maps: Tensor) -> list[dict[str, Any]]:
    """Write the maps of one picture.

    Args:
        phrases: whose they are.
        maps: (p h w), 0 or more, one for each phrase.

    Returns:
        {"phrase", "map": {"height", "width", "uint8_zlib_base64"}} for each, 1 where the phrase looks most.
    """
    coarser = math.ceil(max(maps.shape[-2:]) / FINEST)
    size = tuple(math.ceil(side / coarser) for side in maps.shape[-2:])
    small = [scaled_map(resample_by_area(each.detach().float().cpu(), *size), *size) for each in maps]
    return [{"phrase": phrase, "map": pack_greys(to_levels(each))} for phrase, each in zip(phrases, small, strict=True)]
