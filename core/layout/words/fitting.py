"""Boxes of usual sizes at usual places, as near as orders of their edges allow.

Each axis is a least-squares problem with inequalities (Lawson and Hanson, Solving Least Squares Problems, ch. 23: least
distance programming), so what is too large for its place gives way evenly.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from .orders import Orders, X, Y, end, start
from .sentences import Statement

LARGEST = 0.9  # side of a thing that nothing is in the way of
# Where a thing's middle is drawn to on an axis by what is said of its place, and how strongly.
DRAWN = {
    "left": (X, 0.25),
    "right": (X, 0.75),
    "top": (Y, 0.22),
    "bottom": (Y, 0.78),
    "background": (Y, 0.35),
    "foreground": (Y, 0.7),
}
PLACE_PULL, FREE_PULL, ALIGN_PULL, NEAR_PULL = 0.8, 0.1, 0.4, 0.3
GROUND = 0.56  # where the middle of a thing is of which nothing is said, from the top
MOST_IN_A_ROW = 4
WITHIN, WITHIN_PULL = 0.55, 4.0  # of the outer thing's side that one inside it has
Row = tuple[dict[int, float], float, float]  # factors of edges, what their sum shall be, weight


class Fit:
    """What boxes shall look like where orders leave it open, as rows of a least-squares problem for each axis."""

    def __init__(self, statements: Sequence[Statement], sizes: NDArray[np.float64]) -> None:
        self.count = len(sizes)
        self.rows: list[list[Row]] = [[], []]
        slots = _slots(statements, self.count)
        for thing in range(self.count):
            for axis, target in enumerate(slots[thing]):
                size = float(sizes[thing, axis])
                self.rows[axis].append(({end(thing): 1.0, start(thing): -1.0}, size, 1 / size))
                self._draw(axis, thing, target, FREE_PULL)
        for each in statements:
            if each.others:
                self._relate(each)
                continue
            places = each.kind.split()
            for place in places:
                for axis, target in [DRAWN[place]] if place in DRAWN else [(X, 0.5), (Y, 0.5)]:
                    self._draw(axis, each.thing, target, PLACE_PULL)
            if all(DRAWN.get(place, (X, 0))[0] == Y for place in places):
                self._draw(X, each.thing, 0.5, 2 * FREE_PULL)

    def _draw(self, axis: int, thing: int, target: float, weight: float) -> None:
        self.rows[axis].append(({start(thing): 0.5, end(thing): 0.5}, target, weight))

    def _relate(self, said: Statement) -> None:
        thing, kind = said.thing, said.kind
        for other in said.others:
            centres = {start(thing): 0.5, end(thing): 0.5, start(other): -0.5, end(other): -0.5}
            if kind in ("left", "right", "beside", "between"):
                self.rows[Y].append(({end(thing): 1.0, end(other): -1.0}, 0.0, ALIGN_PULL))
                self.rows[X].append((centres, 0.0, NEAR_PULL / 2))
            elif kind in ("above", "below"):
                self.rows[X].append((centres, 0.0, ALIGN_PULL))
                self.rows[Y].append((centres, 0.0, NEAR_PULL / 2))
            elif kind == "on":
                self.rows[X].append((centres, 0.0, ALIGN_PULL))
                self.rows[Y].append(({end(thing): 1.0, start(other): -0.75, end(other): -0.25}, 0.0, 2.0))
            elif kind == "inside":
                for rows in self.rows:
                    rows.append((centres, 0.0, ALIGN_PULL))
                    sides = {end(thing): 1.0, start(thing): -1.0, end(other): -WITHIN, start(other): WITHIN}
                    rows.append((sides, 0.0, WITHIN_PULL))
            else:
                near, far = (thing, other) if kind == "front" else (other, thing)
                self.rows[X].append((centres, 0.0, ALIGN_PULL / 2))
                self.rows[Y].append(({end(near): 1.0, end(far): -1.0}, 0.08, ALIGN_PULL))
                self.rows[Y].append(({start(near): 1.0, start(far): -0.65, end(far): -0.35}, 0.0, NEAR_PULL))

    def solve(self, orders: Orders, axis: int) -> NDArray[np.float64]:
        """Edges (2n + 1) on an axis, the origin first, that keep the orders and come nearest to the rows."""
        wanted = np.zeros((len(self.rows[axis]), 2 * self.count + 1))
        values = np.zeros(len(wanted))
        for row, (factors, value, weight) in enumerate(self.rows[axis]):
            wanted[row, list(factors)] = [weight * factor for factor in factors.values()]
            values[row] = weight * value
        own = [each for each in orders.kept if each.axis == axis]
        bounds = np.zeros((len(own), wanted.shape[1]))
        for row, each in enumerate(own):
            bounds[row, each.high] += 1
            bounds[row, each.low] -= 1
        gaps = np.array([each.gap for each in own])
        return np.concatenate([[0.0], _least_squares(wanted[:, 1:], values, bounds[:, 1:], gaps)])


def _slots(statements: Sequence[Statement], count: int) -> list[tuple[float, float]]:
    """Where the middle of each thing is drawn to, row by row: things that are told of together to one place."""
    group = list(range(count))
    for each in statements:
        for other in each.others:
            low, high = sorted((group[each.thing], group[other]))
            group = [low if own == high else own for own in group]
    names = sorted(set(group))
    rows = 1 if len(names) <= MOST_IN_A_ROW else round(math.sqrt(len(names)))
    columns = math.ceil(len(names) / rows)
    slots = []
    for own in group:
        row, column = divmod(names.index(own), columns)
        in_row = min(columns, len(names) - row * columns)
        slots.append(((column + 0.5) / in_row, GROUND if rows == 1 else (row + 0.5) / rows))
    return slots


def _least_squares(
    wanted: NDArray[np.float64], values: NDArray[np.float64], bounds: NDArray[np.float64], gaps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The x with bounds x >= gaps that brings wanted x nearest to values; wanted has full column rank."""
    q, r = np.linalg.qr(wanted)
    free = np.linalg.solve(r, q.T @ values)
    turned = np.linalg.solve(r.T, bounds.T)
    dual = np.vstack([turned, gaps - bounds @ free])
    target = np.zeros(len(dual))
    target[-1] = 1.0
    weights, _ = nnls(dual, target, maxiter=100 * dual.shape[1])
    residual = dual @ weights - target
    return free + np.linalg.solve(r, -residual[:-1] / residual[-1])
