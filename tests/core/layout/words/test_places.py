"""Every place that a sentence states holds between the boxes of its layout, for sentences that nobody wrote."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.other_programs import import_layout
from stagecraft.core.layout.region import LayoutError

NOUNS = ("dog", "cat", "bird", "cow", "pig", "frog", "fox", "bear")
SMALLEST = 0.049  # of a side; boxes are rounded
PHRASES = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "high above"),
    "below": ("below", "under", "beneath", "underneath"),
    "front": ("in front of",),
    "behind": ("behind", "directly behind"),
    "beside": ("next to", "beside", "near"),
    "on": ("on", "on top of"),
    "inside": ("in", "inside"),
}
PLACES = ("on the left", "on the right", "at the top", "at the bottom", "in the top left corner", "at the bottom right")


def holds(kind: str, near: dict, other: dict) -> bool:
    """Whether a relation holds between two boxes and their depths, measured without the solver's words."""
    (x0, y0, x1, y1), (a0, b0, a1, b1) = near["box"], other["box"]
    rows_meet = y0 < b1 and b0 < y1
    is_over = (a0 <= x0 and x1 <= a1) or (x0 <= a0 and a1 <= x1)  # a plank may lie on two stones
    return {
        "left": x1 <= a0,
        "right": x0 >= a1,
        "above": y1 <= b0,
        "below": y0 >= b1,
        "front": near["depth"] > other["depth"],
        "behind": near["depth"] < other["depth"],
        "beside": rows_meet and (x1 <= a0 or x0 >= a1),
        "on": near["depth"] > other["depth"] and y0 < b0 < y1 < b1 and is_over,
        "inside": near["depth"] > other["depth"] and a0 < x0 and x1 < a1 and b0 < y0 and y1 < b1,
    }[kind]


def lies(place: str, box: tuple) -> bool:
    x0, y0, x1, y1 = box
    found = {"left": x1 <= 0.5, "right": x0 >= 0.5, "top": y1 <= 0.5, "bottom": y0 >= 0.5}
    return all(found[word] for word in found if word in place)


def measured(layout: Layout) -> dict[str, dict]:
    order = layout.sorted_regions()
    return {r.phrase.split()[-1]: {"box": r.box, "depth": order.index(r)} for r in layout.regions}


def assert_fits_the_canvas(layout: Layout) -> None:
    for region in layout.regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert min(x1 - x0, y1 - y0) >= SMALLEST


def overlapping(things: dict[str, dict]) -> list[tuple[str, str]]:
    pairs = itertools.combinations(things, 2)
    apart = ("left", "right", "above", "below")
    return [pair for pair in pairs if not any(holds(kind, *(things[name] for name in pair)) for kind in apart)]


def linked(pairs: set[frozenset[str]]) -> set[frozenset[str]]:
    """Pairs that a chain of others links: what is on a table that is in front of a wall may overlap the wall."""
    further = {a ^ b for a in pairs for b in pairs if len(a & b) == 1} - pairs
    return linked(pairs | further) if further else pairs


@st.composite
def true_sentences(draw) -> tuple[str, list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Sentences about a hidden arrangement, so that all of them can be true: (text, relations, places)."""
    names = draw(st.permutations(NOUNS))[: draw(st.integers(2, 8))]
    leaves = draw(st.integers(0, min(2, len(names) - 2))) if len(names) > 2 else 0
    whole = names[: len(names) - leaves]
    column, row, depth = (dict(zip(draw(st.permutations(whole)), range(9), strict=False)) for _ in range(3))
    relations, places, said = [], [], set()
    for one, other in draw(st.lists(st.sampled_from(list(itertools.permutations(whole, 2))), min_size=1, max_size=8)):
        if frozenset((one, other)) in said:
            continue
        said.add(frozenset((one, other)))
        true = ["left" if column[one] < column[other] else "right", "above" if row[one] < row[other] else "below"]
        true.append("front" if depth[one] > depth[other] else "behind")
        true += ["beside"] * (abs(row[one] - row[other]) == 1)
        relations.append((draw(st.sampled_from(true)), one, other))
    # What is at the top is not beside what is at the bottom.
    placed = [name for name in whole if not any(kind == "beside" and name in pair for kind, *pair in relations)]
    for name in draw(st.lists(st.sampled_from(placed), max_size=2, unique=True)) if placed else []:
        half = len(whole) / 2
        side, height = "left" if column[name] < half else "right", "top" if row[name] < half else "bottom"
        fitting = [
            place for place in PLACES if set(place.split()) & {"left", "right", "top", "bottom"} <= {side, height}
        ]
        places.append((name, draw(st.sampled_from(fitting))))
    for leaf in names[len(whole) :]:
        relations.append((draw(st.sampled_from(["on", "inside"])), leaf, draw(st.sampled_from(whole))))
    told: set[str] = set()

    def named(name: str) -> str:
        article = "the" if name in told else "a"
        told.add(name)
        return f"{article} {name}"

    parts = [f"{named(a)} {draw(st.sampled_from(PHRASES[kind]))} {named(b)}" for kind, a, b in relations]
    parts += [f"{named(name)} {place}" for name, place in places]
    return draw(st.sampled_from([", ", ". ", "\n", "; "])).join(parts), relations, places


@settings(max_examples=300, deadline=None)
@given(true_sentences(), st.sampled_from([(512, 512), (1024, 512), (384, 832)]))
def test_all_that_can_hold_together_holds(said, size):
    text, relations, places = said
    layout = import_layout(text, width=size[0], height=size[1])
    assert_fits_the_canvas(layout)
    things = measured(layout)
    for kind, one, other in relations:
        assert holds(kind, things[one], things[other]), (kind, one, other)
    for name, place in places:
        assert lies(place, things[name]["box"]), (name, place)
    assert import_layout(text, width=size[0], height=size[1]) == layout, "the same text gives the same layout"
    stacked = {frozenset(pair) for kind, *pair in relations if kind in ("on", "inside", "front", "behind")}
    assert {frozenset(pair) for pair in overlapping(things)} <= linked(stacked)
    assert (layout.visible_masks(100, 100)[1:].sum((1, 2)) > 0).all(), "nothing is hidden behind the others"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(PHRASES)), *[st.sampled_from(NOUNS)] * 2), min_size=1, max_size=7))
def test_of_any_sentences_all_hold_or_two_of_them_are_named(relations):
    """Most of these contradict each other."""
    assume(all(one != other for _, one, other in relations))
    parts = [f"the {one} {PHRASES[kind][0]} the {other}" for kind, one, other in relations]
    try:
        layout = import_layout(", ".join(parts))
    except LayoutError as error:
        named = [part for part in set(parts) if f'"{part}"' in str(error)]
        assert "cannot hold together" in str(error) and len(named) >= 2
        return
    assert_fits_the_canvas(layout)
    things = measured(layout)
    assert all(holds(kind, things[one], things[other]) for kind, one, other in relations)


@pytest.mark.parametrize("count", range(1, 17))
def test_free_things_lie_apart(count):
    names = [f"a thing{'abcdefghijklmnop'[k]}" for k in range(count)]
    text = f"{', '.join(names[:-1])} and {names[-1]}" if count > 1 else f"{names[0]} in the middle"
    layout = import_layout(text)
    assert len(layout.regions) == count and not overlapping(measured(layout))
    assert all((r.box[2] - r.box[0]) * (r.box[3] - r.box[1]) > 0.2 / count for r in layout.regions)


@pytest.mark.parametrize(
    "shape", ["{} left of {}", "{} right of {}", "{} above {}", "{} in front of {}", "{} inside {}"]
)
def test_eight_things_in_a_chain_find_room(shape):
    kind = {"left of": "left", "right of": "right", "above": "above", "in front of": "front", "inside": "inside"}[
        shape[3:-3]
    ]
    pairs = list(itertools.pairwise(NOUNS))
    text = ". ".join(shape.format(f"the {one}", f"the {other}") for one, other in pairs)
    layout = import_layout(text)
    assert_fits_the_canvas(layout)
    assert all(holds(kind, measured(layout)[one], measured(layout)[other]) for one, other in pairs)
