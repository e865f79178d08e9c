"""Bare boxes of four numbers, as most nodes with BBOX give them: left, top, right, bottom in pixels."""

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from torch import Tensor

from ..region import LayoutError, describe

Corners = tuple[float, float, float, float]


def plain_values(value: object) -> object:
    """Tables of numbers as lists, and all else as it is."""
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value


def is_corners(value: object) -> TypeGuard[Sequence[float]]:
    """Whether a value is four numbers."""
    value = plain_values(value)
    is_row = isinstance(value, list | tuple) and len(value) == 4
    return is_row and all(isinstance(each, int | float | np.number) and not isinstance(each, bool) for each in value)


def read_corners(box: Sequence[float], width: int, height: int) -> Corners:
    """Left, top, right and bottom in shares of the canvas.

    Args:
        box: the same in pixels; where none of them is above 1, in shares already.
        width: canvas in pixels.
        height: the same.

    Raises:
        LayoutError: no area.
    """
    x0, y0, x1, y1 = (float(value) for value in plain_values(box))
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)) or x0 >= x1 or y0 >= y1:
        raise LayoutError(
            f"A connected box is {describe(list(plain_values(box)))}. Four bare numbers are left, top, right and "
            "bottom, so the third has to be above the first and the fourth above the second. If they are x, y, width "
            'and height, connect them as {"x": ..., "y": ..., "width": ..., "height": ...}.'
        )
    if max(x0, y0, x1, y1) <= 1:
        return x0, y0, x1, y1
    return x0 / width, y0 / height, x1 / width, y1 / height
