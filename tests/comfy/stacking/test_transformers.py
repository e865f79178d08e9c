"""The same stacks on a transformer, whose text and picture attend in one sequence."""

import itertools

import pytest
from stagecraft.tests.comfy.attention_guidance.transformer_models import model_of
from stagecraft.tests.comfy.conftest import CONTEXT
from stagecraft.tests.comfy.stacking.conftest import make_world
from stagecraft.tests.comfy.stacking.expected import DEPTHS, check, expected_refusals, is_ordered, two
from stagecraft.tests.comfy.stacking.patchers import PATCHERS, evidence
from stagecraft.tests.comfy.stacking.stack import assert_same_picture, difference, refusal, sample
from stagecraft.tests.comfy.transformers import filled, flux

pytestmark = pytest.mark.usefixtures("no_gradients", "unharmed")

WORKING = [each for each in PATCHERS if each.name not in DEPTHS]
PAIRS = [two(*pair) for pair in itertools.combinations_with_replacement(WORKING, 2)]


def names(pair):
    return " and ".join(each.name for each in pair)


@pytest.fixture(scope="module")
def world(no_gradients, clip, remembering_vae, cnc, stacked_control_net):
    made = filled(flux(context_in_dim=CONTEXT))
    return make_world(model_of(made), clip, remembering_vae, cnc, stacked_control_net)


@pytest.mark.parametrize("patcher", WORKING, ids=lambda each: each.name)
def test_each_alone(world, patcher):
    picture, calls = world.run(patcher)
    assert not evidence(world, [patcher], world.stacked(patcher), calls, picture)
    assert difference(picture, world.picture()) > 1e-2


@pytest.mark.parametrize("patcher", [each for each in PATCHERS if each.name in DEPTHS], ids=lambda each: each.name)
def test_what_owns_a_network_for_u_nets_says_so(world, patcher):
    refusal(lambda: sample(world.stacked(patcher)), "U-Net")


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_pairs_in_both_orders(world, pair):
    for ordered in (pair, pair[::-1]):
        check(world, *ordered)
    if expected_refusals(*pair) or expected_refusals(*pair[::-1]):
        return
    found, swapped = world.picture(*pair), world.picture(*pair[::-1])
    if is_ordered(*pair):
        assert difference(found, swapped) > 1e-2
    else:
        assert_same_picture(found, swapped)
