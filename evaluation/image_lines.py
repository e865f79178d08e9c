"""Lines of pictures without a layout: what CLIP says of every one, beside what a part measures itself."""

import numpy as np

from .judging.yardsticks import Yardsticks
from .records.lines import Key, PictureLine, picture_line


def image_line(
    yardsticks: Yardsticks,
    key: Key,
    picture: np.ndarray,
    prompt: str,
    *,
    with_features: bool = False,
    **given: object,
) -> PictureLine:
    """Make the line of a picture.

    Args:
        yardsticks: the judges.
        key: of the picture.
        picture: uint8 (h w 3).
        prompt: what it is to show.
        with_features: whether KID will need them.
        given: see `picture_line`.
    """
    (features,), (text,) = yardsticks.image_features([picture]), yardsticks.text_features([prompt])
    kept = features if with_features else None
    return picture_line(*key, clip=float(features @ text), features=kept, **given)
