"""Our own nodes on top of each other: every pair in both orders, each one twice, and triples drawn at random.

Each stack gives a picture in which every member took part, or says in one sentence of ours what to connect instead.
What is expected stands in three tables; a pair that none of them names gives a picture, in either order the same.
"""

import itertools
import random

import pytest
import torch
from stagecraft.nodes import NODES
from stagecraft.tests.comfy.stacking.patchers import BY_NAME, EDITS, INVERTED, LAYERED, PATCHERS, STARTS, evidence
from stagecraft.tests.comfy.stacking.stack import (
    assert_same_picture,
    difference,
    patches,
    refusal,
    sample,
)

pytestmark = pytest.mark.usefixtures("no_gradients")

DEPTHS = ("depths", "depths and looks")
# First, second, and what is said: such prompts are shared out among the parts of a run already.
REFUSED = [
    ((*LAYERED, *EDITS), LAYERED, "so it cannot be layered. Connect the prompt's own"),
    (LAYERED, EDITS, "so it cannot be edited with. Connect the prompt's own"),
    (EDITS, EDITS, "from another Edit Picture. Chain the edits"),
    ((*LAYERED, *EDITS), INVERTED, "an inversion needs one for the whole picture. Connect the prompt's own"),
    (("cropped layers",), DEPTHS, "cannot be cropped with its layer.* Switch crop off"),
    (DEPTHS, ("cropped layers",), "cannot be cropped with its layer.* Switch crop off"),
    (("inverted latent",), EDITS, "adds no noise, but an edit needs it. Switch add_noise on"),
]
# Pairs whose order matters, and why. All others commute: each writes its own options on prompts, and its own wrapper on
# the model, which finds in the run whatever lies on the prompts by then.
ORDERED = [
    (("guidance",), ("guidance",), "the second moves the state that the first has moved"),
    (STARTS, STARTS, "a run starts at the noise that is connected: the last one's"),
]
TRIPLES, REFUSED_TRIPLES = 40, 10


def kind(member):
    return member.name.removesuffix(" again")


def expected_refusals(*members):
    """What may be said of a stack, by its ordered pairs."""
    return [
        said
        for one, other in itertools.combinations(members, 2)
        for first, second, said in REFUSED
        if kind(one) in first and kind(other) in second
    ]


def is_ordered(one, other):
    pair = {kind(one), kind(other)}
    return any(pair <= {*first, *second} and pair & {*first} and pair & {*second} for first, second, _ in ORDERED)


def taking_part(members):
    """All members but the starts that another one has taken the place of."""
    starts = [member for member in members if kind(member) in STARTS]
    return [member for member in members if member not in starts[:-1]]


def check(world, *members):
    """A stack's picture shows every member, or the stack is refused."""
    if said := expected_refusals(*members):
        refusal(lambda: sample(world.stacked(*members)), "|".join(said))
        return
    picture, calls = world.run(*members)
    assert picture.shape == world.start.latent.shape and picture.isfinite().all()
    assert not evidence(world, taking_part(members), world.stacked(*members), calls, picture)
    for member in members:
        without = world.picture(*(each for each in members if each is not member))
        if member in taking_part(members):
            assert difference(picture, without) > 1e-2, f"{member.name} changes nothing"
        else:
            assert_same_picture(picture, without)


def two(first, second):
    return (first, second.other() if first is second else second)


@pytest.fixture(scope="module")
def before(world):
    return sample(world.start, steps=1)


@pytest.fixture(autouse=True)
def unharmed(world, before):
    """A plain run is what it was before, bit for bit."""
    yield
    assert torch.equal(sample(world.start, steps=1), before)


def test_every_node_that_patches_is_stacked():
    """A new one is, with its required links and its defaults; tests of those say what else they need."""
    assert {node for node in NODES if patches(node)} == {each.node for each in PATCHERS}
    assert len(BY_NAME) == len(PATCHERS)


@pytest.mark.parametrize("patcher", PATCHERS, ids=lambda each: each.name)
def test_each_alone(world, patcher):
    picture, calls = world.run(patcher)
    assert not evidence(world, [patcher], world.stacked(patcher), calls, picture)
    assert difference(picture, world.picture()) > 1e-2


@pytest.mark.parametrize("second", PATCHERS, ids=lambda each: each.name)
@pytest.mark.parametrize("first", PATCHERS, ids=lambda each: each.name)
def test_pairs(world, first, second):
    check(world, *two(first, second))


PAIRS = [two(*pair) for pair in itertools.combinations_with_replacement(PATCHERS, 2)]
COMMUTING = [pair for pair in PAIRS if not expected_refusals(*pair) + expected_refusals(*pair[::-1])]


@pytest.mark.parametrize("pair", COMMUTING, ids=lambda pair: " and ".join(each.name for each in pair))
def test_orders(world, pair):
    found, swapped = world.picture(*pair), world.picture(*pair[::-1])
    if is_ordered(*pair):
        assert difference(found, swapped) > 1e-2
    else:
        assert_same_picture(found, swapped)


def drawn_triples():
    """Ordered triples in which a node may stand twice, on another layout or picture then."""
    triples = [
        (one, other, third.other() if third in (one, other) else third)
        for one, other, third in itertools.product(PATCHERS, repeat=3)
        if one is not other
    ]
    random.Random(0).shuffle(triples)
    refused = [triple for triple in triples if expected_refusals(*triple)]
    return [triple for triple in triples if not expected_refusals(*triple)][:TRIPLES] + refused[:REFUSED_TRIPLES]


@pytest.mark.parametrize("triple", drawn_triples(), ids=lambda triple: " and ".join(each.name for each in triple))
def test_triples(world, triple):
    check(world, *triple)
