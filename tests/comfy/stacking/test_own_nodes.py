"""Our own nodes on top of each other: every pair in both orders, each one twice, and triples drawn at random."""

import itertools
import random

import pytest
from stagecraft.nodes import NODES
from stagecraft.tests.comfy.stacking.expected import check, expected_refusals, is_ordered, two
from stagecraft.tests.comfy.stacking.patchers import BY_NAME, PATCHERS, evidence
from stagecraft.tests.comfy.stacking.stack import assert_same_picture, difference, patches

pytestmark = pytest.mark.usefixtures("no_gradients", "unharmed")

TRIPLES, REFUSED_TRIPLES = 40, 10


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
