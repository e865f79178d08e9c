"""What nodes say and do about a run beyond its picture, with others before or behind them."""

from dataclasses import replace

import pytest
import torch
from stagecraft.core.attention_guidance.comfy.guide import GUIDANCE_LOG
from stagecraft.tests.comfy.stacking.conftest import make_world
from stagecraft.tests.comfy.stacking.patchers import BY_NAME, EDITS
from stagecraft.tests.comfy.stacking.stack import difference, refusal, sample

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_every_start_on_a_model_is_looked_after(no_gradients, make_model, clip, remembering_vae, kind):
    """Nothing of a LATENT is left at a flow model's highest level: only the model can hand the start over."""
    world, invert = make_world(make_model(kind), clip, remembering_vae, None, None), BY_NAME["inverted latent"]
    first = world.stacked(invert)
    on_both = replace(first, model=world.stacked(invert, invert.other()).model)
    found = sample(first)
    assert torch.equal(sample(on_both), found)
    if kind == "FLOW":
        assert difference(found, sample(replace(first, model=world.start.model))) > 1e-2
    refusal(lambda: sample(on_both, sampler="euler_ancestral"), '"euler_ancestral" adds fresh noise')


@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_report_finds_the_run_of_an_edit(world, edit, sampler):
    """By what the sampler gives in the end: uni_pc's last state is not quite a prediction, which an edit mends."""
    for names in ((edit, "guidance"), ("guidance", edit)):
        picture = sample(world.stacked(*(BY_NAME[name] for name in names)), sampler=sampler)
        (run,) = GUIDANCE_LOG.find(picture)
        assert run.measurements
