"""Each of our nodes beside each of ComfyUI's own that patch a model or prompts, in both orders.

As in `test_own_nodes`: a picture in which both took part, or one sentence of ours; what is expected stands in tables.
"""

import pytest
import torch
from stagecraft.tests.comfy.stacking.conftest import make_world
from stagecraft.tests.comfy.stacking.neighbours import AREAS, CONTROL_NETS, MASKS, NEIGHBOURS, WINDOWS
from stagecraft.tests.comfy.stacking.patchers import EDITS, INVERTED, LAYERED, PATCHERS, STARTS, evidence
from stagecraft.tests.comfy.stacking.stack import STEPS, assert_same_picture, difference, refusal, sample

pytestmark = pytest.mark.usefixtures("no_gradients", "unharmed")

PROMPTS_OF = ("soft phrases", "soft regions", "depths", "depths and looks")
AREA = 'gives its prompts an area.* Use Conditioning .Set Mask. with set_cond_area "default"'
CROPPED = "A ControlNet cannot be cropped with its layer.* Switch crop off"
# First, second, and what is said.
REFUSED = [
    (MASKS + AREAS, LAYERED, "already has a place on the canvas .*, so it cannot be layered. Connect the prompt's own"),
    (MASKS + AREAS, EDITS, "already has a place on the canvas, so it cannot be edited with. Connect the prompt's own"),
    ((*LAYERED, "edit"), AREAS, AREA),
    (CONTROL_NETS, ("cropped layers",), CROPPED),
    (("cropped layers",), CONTROL_NETS, CROPPED),
]
# Pairs whose order matters, and why.
ORDERED = [
    (("LoRA", "FreeU", "FreeU_V2", "EasyCache"), STARTS, "an inversion follows the model that it is given"),
    (CONTROL_NETS + MASKS + AREAS, INVERTED, "an inversion follows the prompt that it is given"),
    (MASKS + AREAS, PROMPTS_OF, "the prompt that is combined with the masked one has been through the node or not"),
]
# EasyCache compares steps by the first prompt that it sees. A layer's ends at t0, before it has seen enough of it here.
TOO_SHORT = LAYERED


def matches(table, first, second):
    return [said for firsts, seconds, said in table if first.name in firsts and second.name in seconds]


@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=lambda each: each.name)
def test_each_alone(world, neighbour):
    assert difference(world.picture(neighbour), world.picture()) > 1e-2


@pytest.mark.parametrize("ours", PATCHERS, ids=lambda each: each.name)
@pytest.mark.parametrize("theirs", NEIGHBOURS, ids=lambda each: each.name)
def test_pairs(world, theirs, ours):
    pictures = []
    for pair in ((theirs, ours), (ours, theirs)):
        if said := matches(REFUSED, *pair):
            refusal(lambda pair=pair: sample(world.stacked(*pair)), said[0])
            continue
        picture, calls = world.run(*pair)
        assert picture.isfinite().all() and picture.shape == world.start.latent.shape
        assert not evidence(world, [ours], world.stacked(*pair), calls, picture)
        assert difference(picture, world.picture(theirs)) > 1e-2
        if theirs.name == "EasyCache" and ours.name in TOO_SHORT:
            assert torch.equal(picture, world.picture(ours))
        else:
            assert difference(picture, world.picture(ours)) > 1e-2
        pictures.append(picture)
    if len(pictures) == 2 and not matches(ORDERED, theirs, ours):
        assert_same_picture(*pictures)


@pytest.fixture(scope="module")
def batch(no_gradients, make_model, clip, remembering_vae, cnc, stacked_control_net):
    """As many pictures as noise levels: ComfyUI 0.3.75 compares the two without asking how many there are."""
    return make_world(make_model(), clip, remembering_vae, cnc, stacked_control_net, batch=STEPS + 1)


@pytest.mark.parametrize("ours", PATCHERS, ids=lambda each: each.name)
def test_context_windows(batch, ours):
    """No picture of a U-Net's batch looks at another, so windows of three of them change nothing but rounding."""
    whole = batch.picture(ours)
    assert difference(whole, batch.picture()) > 1e-2
    for pair in ((WINDOWS, ours), (ours, WINDOWS)):
        picture, calls = batch.run(*pair)
        assert not evidence(batch, [ours], batch.stacked(*pair), calls, picture)
        # An inversion enlarges rounding, as its way back does again.
        assert_same_picture(picture, whole, 5e-3 if ours.name in (*STARTS, *EDITS) else 1e-4)
        assert len(calls.states) > len(batch.run(ours)[1].states)
