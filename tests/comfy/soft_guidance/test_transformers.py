"""Soft guidance in every transformer: a region's text stays in its region, and nothing else changes."""

from statistics import median
from types import SimpleNamespace
from uuid import uuid4

import comfy.conds
import comfy.latent_formats
import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention.comfy.recording import OVERRIDE
from stagecraft.core.soft_guidance.comfy.call import WRAPPER, Memory, SoftCall
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.core.soft_guidance.soft_guidance import AREA
from stagecraft.tests.comfy.small_network import WIDTH, normal
from stagecraft.tests.comfy.transformers import TRANSFORMERS, small

pytestmark = pytest.mark.usefixtures("no_gradients")
WORKS = [name for name in TRANSFORMERS if name not in ("HiDream-I1", "Anima")]
LEAK, REFINED_LEAK = 1 / 20, 1 / 5  # of what reaches the outside without masks; the latter where text is refined first
TOKENS = 5


def entry(text, *regions):
    conds = {"c_crossattn": comfy.conds.CONDRegular(text)}
    if regions:
        conds[WRAPPER] = comfy.conds.CONDConstant(tuple((region, AREA) for region in regions))
    return {"model_conds": conds, "uuid": uuid4()}


def evaluate(made, entries, x=None, timestep=0.5, memory=None, override=None):
    """One evaluation of entries in one batch, as ComfyUI's sampling makes it."""
    x = made.state() if x is None else x
    model = SimpleNamespace(
        diffusion_model=made.network, model_sampling=SimpleNamespace(percent_to_sigma=lambda share: 1 - share)
    )
    call = SoftCall(memory or Memory(), model, [entries], x, torch.tensor([timestep]))
    (with_tokens,) = call.with_tokens([entries])
    texts = [each["model_conds"]["c_crossattn"].cond for each in with_tokens]
    options = {
        "transformer_options": {"uuids": [each["uuid"] for each in entries], "cond_or_uncond": [0] * len(entries)}
    }
    if override is not None:
        options["transformer_options"][OVERRIDE] = override
    call.install(options)
    return made.run(x.repeat(len(entries), *[1] * (x.ndim - 1)), torch.cat(texts), options["transformer_options"])


def mask_of(made):
    """A block of whole tokens in the middle."""
    mask = torch.zeros(1, *made.shape[-2:])
    rows, columns = (side // 4 // made.patch * made.patch for side in made.shape[-2:])
    mask[:, rows : rows + made.patch * 2, columns : columns + made.patch * 2] = 1
    return mask


def effect(made, mask, seed):
    """Mean change inside and outside of a mask where the region's tokens change."""
    tokens = [3 * normal(1, TOKENS, WIDTH, seed=seed + number) for number in (100, 200)]
    found = [evaluate(made, [entry(made.prompt(), RegionTokens(each, mask))]) for each in tokens]
    change = (found[0] - found[1]).abs().flatten(0, -3).mean(0)
    inside = mask_of(made)[0].bool()
    return float(change[inside].mean()), float(change[~inside].mean())


@pytest.mark.parametrize("name", WORKS)
def test_a_regions_text_hardly_reaches_what_lies_outside(name):
    made = small(name)
    leaks, shares = [], []
    for seed in range(5):
        inside, outside = effect(made, mask_of(made), seed)
        _, open_everywhere = effect(made, torch.ones_like(mask_of(made)), seed)
        assert inside > 0
        leaks.append(outside / open_everywhere)
        shares.append(outside / inside)
    bound = REFINED_LEAK if known_family(made.network).refiner else LEAK
    assert median(leaks) <= bound, (leaks, shares)


@pytest.mark.parametrize("name", WORKS)
def test_columns_that_nobody_sees_change_nothing(name):
    """A prompt without regions beside one with them; where more text moves the picture it gets none."""
    made = small(name)
    region = RegionTokens(normal(1, TOKENS, WIDTH, seed=9), mask_of(made))
    without = entry(made.prompt())
    entries = [entry(made.prompt(), region), without] if known_family(made.network).appends else [without, without]
    beside = evaluate(made, entries)[1:]
    plain = made.run(made.state().repeat(2, *[1] * len(made.shape)), made.prompt().repeat(2, 1, 1), {})[1:]
    assert (beside - plain).abs().max() <= 1e-5 * plain.abs().max()
