"""Boxes for things of which only is said how they lie to each other.

First every statement becomes orders of edges, where several would do the first that contradicts nothing. Then boxes of
the usual sizes are fitted to these orders. Boxes that overlap without having to are parted in the shorter direction and
fitted anew. The same statements give the same boxes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..masks import Box
from ..region import LayoutError
from .fitting import LARGEST, Fit
from .orders import DEPTH, ORIGIN, ContradictionError, Order, Orders, X, Y, depth, end, start
from .sentences import Statement
from .statements import GAP, Way, ways_of
from .vocabulary import SIZES

SMALLEST, MARGIN = 0.05, 0.02  # side of a thing and free edge of the canvas, in shares of it, up to `USUAL` things
USUAL = 8
AREA = 0.4  # of the canvas, that all things together have before they find room
MOST_TRIES = 2000
STACKED = ("on", "inside", "front", "behind")  # whose boxes overlap
# Of whose things that share a statement the boxes stand beside each other, not above.
SIDE_BY_SIDE = frozenset("above below on front behind inside top bottom middle background foreground".split())


@dataclass(frozen=True)
class Placed:
    """One thing's place: its box in shares of the canvas, and its painter's order."""

    box: Box
    order: int


def place_things(names: Sequence[str], statements: Sequence[Statement], width: int, height: int) -> list[Placed]:
    """Find a box and an order for every thing.

    Args:
        names: of the things; words such as "big" or "tall" change their sizes.
        statements: of where they are, which all hold for the boxes.
        width: canvas, pixels; with the height it says what is square.
        height: canvas, pixels.

    Raises:
        LayoutError: statements that contradict each other, or too many for the canvas.
    """
    sizes = _sizes(names, statements, width, height)
    try:
        orders = _agreed(statements, sizes)
    except ContradictionError as error:
        raise LayoutError(_contradiction(error.said)) from None
    fit = Fit(statements, sizes)
    boxes = _parted(fit, orders, statements)
    depths = [int(orders.way(DEPTH, ORIGIN, depth(thing))) for thing in range(len(names))]
    return [
        Placed(tuple(round(float(edge), 3) for edge in box), layer) for box, layer in zip(boxes, depths, strict=True)
    ]


def _contradiction(said: Sequence[str]) -> str:
    shown = [f'"{words if len(words) <= 80 else words[:77] + "..."}"' for words in said[:3]]
    if len(said) == 1:
        return f"{shown[0]} cannot be on one canvas. Say where the thing is in another way."
    more = f", and {len(said) - 3} more" if len(said) > 3 else ""
    joined = ", ".join(shown[:-1]) + " and " + shown[-1] if not more else ", ".join(shown)
    return f"These cannot hold together: {joined}{more}. Change or leave out one of them."


def _sizes(names: Sequence[str], statements: Sequence[Statement], width: int, height: int) -> NDArray[np.float64]:
    """Width and height (n 2) that things have where nothing is in their way, in shares of the canvas."""
    side = math.sqrt(AREA / max(len(names), 1)) if len(names) > 1 else 0.6
    sides = np.full((len(names), 2), side)
    for thing, name in enumerate(names):
        for word in name.lower().split():
            sides[thing] *= SIZES.get(word, (1.0, 1.0))
    for each in statements:
        if each.kind in ("foreground", "background"):
            sides[each.thing] *= 1.2
    wide = width / height if width > 0 and height > 0 else 1.0
    return np.clip(sides * [wide**-0.5, wide**0.5], SMALLEST, LARGEST)


def _agreed(statements: Sequence[Statement], sizes: NDArray[np.float64]) -> Orders:
    """Orders in which every statement holds."""
    scale = min(1.0, USUAL / len(sizes))
    orders = Orders(len(sizes), SMALLEST * scale, MARGIN)
    open_ways = []
    for each in statements:
        ways = ways_of(each, scale, bool(each.others) and sizes[each.thing, Y] >= sizes[each.others[0], Y])
        shared = [order for order in ways[0] if all(order in way for way in ways)]
        for order in shared:
            orders.add(order)
        if len(ways) > 1:
            open_ways.append([tuple(order for order in way if order not in shared) for way in ways])
    near, far = ([each for each in statements if kind in each.kind.split()] for kind in ("foreground", "background"))
    for front in near:
        for back in far:
            said = f"{back.said}, {front.said}"
            orders.add(Order(DEPTH, depth(back.thing), depth(front.thing), 1, said))
    orders = _chosen(orders, open_ways)
    behind = {each.thing for each in far}
    for back in far:
        for other in sorted(set(range(len(sizes))) - behind):
            order = Order(DEPTH, depth(back.thing), depth(other), 1)
            orders = orders.add_all([order]) or orders
    return orders


def _chosen(orders: Orders, open_ways: Sequence[Sequence[Way]]) -> Orders:
    """Orders with one way of each statement that has several, tried in turn."""
    for ways in open_ways:
        if not any(orders.add_all(way) for way in ways):
            for order in ways[0]:
                orders.add(order)
    tries = [(0, orders)]
    for _ in range(MOST_TRIES):
        if not tries:
            break
        count, tried = tries.pop()
        if count == len(open_ways):
            return tried
        further = (tried.add_all(way) for way in open_ways[count])
        tries += [(count + 1, each) for each in further if each is not None][::-1]
    raise ContradictionError(way[0].said for ways in open_ways for way in ways if way)


def _stacked(statements: Sequence[Statement]) -> set[frozenset[int]]:
    """Pairs whose boxes overlap because it is said; of "a in b in c" all three."""
    pairs = {frozenset((each.thing, each.others[0])) for each in statements if each.kind in STACKED}
    within = {(each.thing, each.others[0]) for each in statements if each.kind == "inside"}
    while further := {(a, d) for a, b in within for c, d in within if b == c} - within:
        within |= further
    return pairs | {frozenset(pair) for pair in within}


def _parted(fit: "Fit", orders: Orders, statements: Sequence[Statement]) -> NDArray[np.float64]:
    """Boxes (n 4) of which none overlap but those that have to."""
    count, stacked = orders.things, _stacked(statements)
    edges = [fit.solve(orders, axis) for axis in (X, Y)]
    centres = [(each[1::2] + each[2::2]).round(6) for each in edges]  # before any were parted
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count) if frozenset((a, b)) not in stacked]
    shared_statement = _alike(statements)
    gap = GAP * min(1.0, USUAL / count)
    while True:
        shared = {pair: _shared(edges, *pair) for pair in pairs}
        pair = max(pairs, key=lambda each: shared[each], default=(0, 0))
        if shared.get(pair, 0.0) <= 0:
            break
        ways = []
        for axis in (X, Y):
            first, second = pair if centres[axis][pair[0]] <= centres[axis][pair[1]] else pair[::-1]
            moved = round(float(edges[axis][end(first)] - edges[axis][start(second)]), 6)
            preferred = shared_statement.get(pair, axis) == axis
            ways.append((0, not preferred, moved, Order(axis, end(first), start(second), gap)))
            ways.append((1, not preferred, moved, Order(axis, end(second), start(first), gap)))
        for *_, way in sorted(ways, key=lambda each: each[:3]):
            if orders.fits(way):
                orders.add(way)
                edges[way.axis] = fit.solve(orders, way.axis)
                break
        else:
            pairs.remove(pair)
    corners = [edges[axis][place(thing)] for thing in range(count) for place in (start, end) for axis in (X, Y)]
    return np.array(corners).reshape(count, 4)


def _alike(statements: Sequence[Statement]) -> dict[tuple[int, int], int]:
    """For pairs of which the same is said, the axis on which they stand apart: "two birds above a house"."""
    found: dict[tuple[int, int], int] = {}
    for first in statements:
        for second in statements:
            if first.thing < second.thing and (first.kind, first.others) == (second.kind, second.others):
                found[first.thing, second.thing] = X if first.kind in SIDE_BY_SIDE else Y
    return found


def _shared(edges: Sequence[NDArray[np.float64]], a: int, b: int) -> float:
    """Area that two boxes share."""
    sides = [min(each[end(a)], each[end(b)]) - max(each[start(a)], each[start(b)]) for each in edges]
    return round(max(sides[X], 0.0) * max(sides[Y], 0.0), 6)
