"""What each statement about places means for the edges of boxes: one way to hold, or several of which one must.

A box is left of another where its right edge lies before the other's left one; it is on another where it ends within
the other's upper part; in front of another it hides a part of it, and never all.
"""

from collections.abc import Callable, Sequence

from .orders import DEPTH, ORIGIN, Order, X, Y, depth, end, start
from .sentences import Statement

GAP = 0.01  # between boxes, shares of the canvas
OVERLAP = 0.02  # by which boxes overlap that have to
SHOWN = 0.03  # of a thing behind another that is seen beside it
HALF, MIDDLE, FAR = 0.5, (0.2, 0.8), 0.7  # where a thing lies that is on the left, in the middle, in the background

Way = tuple[Order, ...]


def ways_of(statement: Statement, scale: float, is_taller: bool) -> list[Way]:
    """Ways in which a statement can hold, the best first.

    Args:
        statement: what is said.
        scale: of the gaps; below 1 where there are many things.
        is_taller: whether the thing is taller than what it is seen from.
    """
    if not statement.others:
        return [tuple(order for place in statement.kind.split() for order in _PLACED[place](statement))]
    return [tuple(_scaled(order, scale) for order in way) for way in _WAYS[statement.kind](statement, is_taller)]


def _scaled(order: Order, scale: float) -> Order:
    return order if order.axis == DEPTH else Order(order.axis, order.low, order.high, order.gap * scale, order.said)


def _apart(axis: int, first: int, second: int, said: str) -> Order:
    return Order(axis, end(first), start(second), GAP, said)


def _overlapping(axis: int, a: int, b: int, said: str) -> Way:
    return (Order(axis, start(a), end(b), OVERLAP, said), Order(axis, start(b), end(a), OVERLAP, said))


def _inside(axis: int, inner: int, outer: int, gap: float, said: str) -> Way:
    return (Order(axis, start(outer), start(inner), gap, said), Order(axis, end(inner), end(outer), gap, said))


def _nearer(near: int, far: int, said: str) -> Order:
    return Order(DEPTH, depth(far), depth(near), 1, said)


def _left(said: Statement, _: bool) -> Sequence[Way]:
    return [(_apart(X, said.thing, said.others[0], said.said),)]


def _right(said: Statement, _: bool) -> Sequence[Way]:
    return [(_apart(X, said.others[0], said.thing, said.said),)]


def _above(said: Statement, _: bool) -> Sequence[Way]:
    return [(_apart(Y, said.thing, said.others[0], said.said),)]


def _below(said: Statement, _: bool) -> Sequence[Way]:
    return [(_apart(Y, said.others[0], said.thing, said.said),)]


def _beside(said: Statement, _: bool) -> Sequence[Way]:
    level = _overlapping(Y, said.thing, said.others[0], said.said)
    return [(*level, *_left(said, _)[0]), (*level, *_right(said, _)[0])]


def _between(said: Statement, _: bool) -> Sequence[Way]:
    first, second = said.others
    pairs = [(axis, *pair) for axis in (X, Y) for pair in ((first, second), (second, first))]
    return [(_apart(axis, a, said.thing, said.said), _apart(axis, said.thing, b, said.said)) for axis, a, b in pairs]


def _is_inside(said: Statement, _: bool) -> Sequence[Way]:
    thing, other = said.thing, said.others[0]
    sides = [order for axis in (X, Y) for order in _inside(axis, thing, other, GAP, said.said)]
    return [(_nearer(thing, other, said.said), *sides)]


def _on(said: Statement, _: bool) -> Sequence[Way]:
    thing, other, words = said.thing, said.others[0], said.said
    stands = (
        _nearer(thing, other, words),
        Order(Y, start(thing), start(other), SHOWN, words),
        Order(Y, start(other), end(thing), GAP, words),
        Order(Y, end(thing), end(other), SHOWN, words),
    )
    return [(*stands, *_inside(X, *pair, 0, words)) for pair in ((thing, other), (other, thing))]


def _front(said: Statement, is_taller: bool) -> Sequence[Way]:
    return _hiding(said.thing, said.others[0], said.said, not is_taller)


def _behind(said: Statement, is_taller: bool) -> Sequence[Way]:
    return _hiding(said.others[0], said.thing, said.said, is_taller)


def _hiding(near: int, far: int, said: str, is_far_taller: bool) -> Sequence[Way]:
    """The nearer of two ends lower, and the farther one is seen above or beside it."""
    always = (_nearer(near, far, said), Order(Y, end(far), end(near), GAP, said))
    over = (*_overlapping(X, near, far, said), *_overlapping(Y, near, far, said))
    above = (*always, *over, Order(Y, start(far), start(near), SHOWN, said))
    left = (*always, *over, Order(X, start(far), start(near), SHOWN, said))
    right = (*always, *over, Order(X, end(near), end(far), SHOWN, said))
    seen = [above, left, right] if is_far_taller else [left, right, above]
    return [*seen, always, always[:1]]


def _bounds(axis: int, statement: Statement, low: float, high: float) -> Way:
    thing, said = statement.thing, statement.said
    return (Order(axis, ORIGIN, start(thing), low, said), Order(axis, end(thing), ORIGIN, -high, said))


_WAYS: dict[str, Callable[[Statement, bool], Sequence[Way]]] = {
    "left": _left,
    "right": _right,
    "above": _above,
    "below": _below,
    "beside": _beside,
    "between": _between,
    "inside": _is_inside,
    "on": _on,
    "front": _front,
    "behind": _behind,
}
_PLACED: dict[str, Callable[[Statement], Way]] = {
    "left": lambda said: _bounds(X, said, 0, HALF),
    "right": lambda said: _bounds(X, said, HALF, 1),
    "top": lambda said: _bounds(Y, said, 0, HALF),
    "bottom": lambda said: _bounds(Y, said, HALF, 1),
    "middle": lambda said: (*_bounds(X, said, *MIDDLE), *_bounds(Y, said, *MIDDLE)),
    "background": lambda said: _bounds(Y, said, 0, FAR),
    "foreground": lambda said: _bounds(Y, said, 1 - FAR, 1),
}
