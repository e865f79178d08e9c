"""Places as orders of edges: "this edge lies at least so far behind that one", kept without contradiction.

Of every thing there are two edges on each axis, and a depth. All that holds together is known at any time as the
longest way between each two edges (Floyd and Warshall's closure, one edge at a time), so an order that cannot hold is
seen as soon as it is stated, with the statements that it contradicts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

X, Y, DEPTH = 0, 1, 2
ROUNDING = 1e-9
ORIGIN = 0  # of every axis: the canvas' left or upper edge, or the farthest depth


@dataclass(frozen=True)
class Order:
    """One edge at least so far behind another: low + gap <= high.

    Attributes:
        axis: X, Y or DEPTH.
        low: the edge nearer to the origin, see `start`, `end` and `depth`.
        high: the other one.
        gap: in shares of the canvas; of depths in layers.
        said: the words that say so; "" where nobody has said it.
    """

    axis: int
    low: int
    high: int
    gap: float
    said: str = ""


class ContradictionError(Exception):
    """An order that cannot hold beside others; `said` are the words of all that take part."""

    def __init__(self, said: Iterable[str]) -> None:
        self.said = tuple(dict.fromkeys(words for words in said if words))
        super().__init__(", ".join(self.said))


def start(thing: int) -> int:
    """A thing's left or upper edge."""
    return 1 + 2 * thing


def end(thing: int) -> int:
    """A thing's right or lower edge."""
    return 2 + 2 * thing


def depth(thing: int) -> int:
    """A thing's depth; a larger one is nearer."""
    return 1 + thing


class Orders:
    """Orders that hold together.

    Args:
        things: how many.
        smallest: side that everything has at least.
        margin: of the canvas that stays free on every side.
    """

    def __init__(self, things: int, smallest: float, margin: float) -> None:
        self.things = things
        sizes = (2 * things + 1, 2 * things + 1, things + 1)
        self._ways = [np.where(np.eye(size, dtype=bool), 0.0, -np.inf) for size in sizes]
        self.kept: list[Order] = []
        for axis in (X, Y):
            for thing in range(things):
                self.add(Order(axis, ORIGIN, start(thing), margin))
                self.add(Order(axis, end(thing), ORIGIN, margin - 1))
                self.add(Order(axis, start(thing), end(thing), smallest))
        for thing in range(things):
            self.add(Order(DEPTH, ORIGIN, depth(thing), 0))

    def copy(self) -> "Orders":
        """Give the same orders, to which others can be added."""
        other = object.__new__(Orders)
        other.things, other.kept, other._ways = self.things, list(self.kept), [ways.copy() for ways in self._ways]
        return other

    def holds(self, order: Order) -> bool:
        """Whether an order follows from the others."""
        return bool(self._ways[order.axis][order.low, order.high] >= order.gap - ROUNDING)

    def fits(self, order: Order) -> bool:
        """Whether an order contradicts none of the others."""
        return bool(self._ways[order.axis][order.high, order.low] + order.gap <= ROUNDING)

    def way(self, axis: int, low: int, high: int) -> float:
        """How far one edge lies behind another at least; minus infinity where nothing says so."""
        return float(self._ways[axis][low, high])

    def add(self, order: Order) -> None:
        """Keep one order more.

        Raises:
            ContradictionError: it cannot hold.
        """
        if not self.fits(order):
            raise ContradictionError([*self._way_back(order), order.said])
        if not self.holds(order):
            self.kept.append(order)
            ways = self._ways[order.axis]
            np.maximum(ways, ways[:, order.low, None] + order.gap + ways[None, order.high, :], out=ways)

    def add_all(self, orders: Sequence[Order]) -> "Orders | None":
        """Give orders with more of them, or None where they contradict."""
        other = self.copy()
        try:
            for order in orders:
                other.add(order)
        except ContradictionError:
            return None
        return other

    def _way_back(self, order: Order) -> list[str]:
        """What is said on the longest way from an order's higher edge to its lower one."""
        own = [each for each in self.kept if each.axis == order.axis]
        far, by = {order.high: 0.0}, dict[int, Order]()
        for _ in range(len(own)):
            changed = False
            for each in own:
                reached = far.get(each.low, -np.inf) + each.gap
                if reached > far.get(each.high, -np.inf) + ROUNDING:
                    far[each.high], by[each.high], changed = reached, each, True
            if not changed:
                break
        said, edge = [], order.low
        while edge != order.high:
            said.append(by[edge].said)
            edge = by[edge].low
        return said[::-1]
