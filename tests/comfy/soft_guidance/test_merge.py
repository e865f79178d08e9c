"""Soft guidance on transformers without a mask: the same evaluation as with one, and who evaluates its attentions."""

import logging
from contextlib import nullcontext

import comfy.ldm.modules.attention
import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention_guidance.comfy.kitchen_gradients import differentiate_rope
from stagecraft.core.attention_guidance.overwritten import overwriting_allowed
from stagecraft.core.soft_guidance.comfy.memory import Memory
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.core.soft_guidance.comfy.transformers import TransformerForward
from stagecraft.tests.comfy.small_network import WIDTH, normal
from stagecraft.tests.comfy.soft_guidance.test_transformers import TOKENS, WORKS, entry, evaluate, mask_of
from stagecraft.tests.comfy.transformers import small

JOINT = [name for name in WORKS if "Wan" not in name and "Cosmos" not in name]
BY_BIAS, BY_MERGE = 2**60, 0  # largest masks, in bytes
CLOSE = 1e-5
MASKS_ITSELF = ("Lens",)  # gives attention a mask for its own text, to which ours is joined


def half(made, side):
    """Cells of the left or the right half, and some of the other."""
    mask = torch.zeros(1, *made.shape[-2:])
    width = made.shape[-1] // 2
    mask[..., slice(0, width + made.patch) if side == "left" else slice(width, None)] = 1
    return mask


def regions(made, weight=2.0, hard=0.0, seed=0):
    """Two that overlap, in the middle of the picture."""
    return [
        RegionTokens(normal(1, TOKENS + k, WIDTH, seed=seed + k), half(made, side), weight=weight, hard_until=hard)
        for k, side in enumerate(("left", "right"))
    ]


def both_ways(made, entries, merges=True, **more):
    """The same evaluation with a mask and without one."""
    memories = [Memory(largest) for largest in (BY_BIAS, BY_MERGE)]
    found = [evaluate(made, entries, memory=memory, **more) for memory in memories]
    joint = [{key for key in memory.biases if "text" not in key} for memory in memories]
    assert joint[0] and bool(joint[1]) != merges, "the second must not have made the mask"
    return found


def assert_close(found, expected):
    assert torch.isfinite(expected).all()
    assert (found - expected).abs().max() <= CLOSE * expected.abs().max()


@pytest.mark.parametrize("hard", [0.0, 1.0], ids=["soft", "hard"])
@pytest.mark.parametrize("name", JOINT)
def test_merged_is_masked(name, hard, no_gradients):
    """Refined text, references, registers, padding; a prompt without regions in the same batch."""
    made = small(name)
    ours = entry(made.prompt(), *regions(made, hard=hard))
    entries = [ours, entry(made.prompt()), entry(made.prompt(), *regions(made, seed=50)[:1])]
    entries = entries if known_family(made.network).appends else [ours]
    masked, merged = both_ways(made, entries, merges=name not in MASKS_ITSELF)
    assert_close(merged, masked)
    without = evaluate(made, [entry(made.prompt())] * len(entries))
    assert (masked - without)[0].abs().max() > 1e3 * (masked - merged).abs().max(), "it must change something"


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_each_picture_has_its_own(no_gradients, weight):
    made = small("Flux")
    masks = torch.cat([half(made, "left"), mask_of(made)])
    region = RegionTokens(normal(2, TOKENS, WIDTH, seed=3), masks, weight=weight)
    entries, x = [entry(made.prompt(2), region), entry(made.prompt(2))], normal(2, *made.shape, seed=4)
    masked, merged = both_ways(made, entries, x=x)
    assert_close(merged, masked)


def test_hard_only_for_the_first_part_of_the_run(no_gradients):
    """One run, one memory: what was made for the first part is not used in the second."""
    made, memory = small("Flux"), Memory(BY_MERGE)
    ours = entry(made.prompt(), *regions(made, hard=0.3))
    found = [evaluate(made, [ours], timestep=t, memory=memory) for t in (0.9, 0.5, 0.9)]
    expected = [evaluate(made, [ours], timestep=t, memory=Memory(BY_BIAS)) for t in (0.9, 0.5)]
    for one, other in zip(found, [*expected, expected[0]], strict=True):
        assert_close(one, other)
    assert (expected[0] - expected[1]).abs().max() > 1e2 * CLOSE * expected[0].abs().max()


@pytest.mark.parametrize("hard", [0.0, 1.0], ids=["soft", "hard"])
@pytest.mark.parametrize("name", ["Flux", "SD 3", "Qwen-Image", "Z-Image", "HunyuanImage"])
def test_the_gradient_is_that_of_the_masked_one(name, hard):
    made = small(name)
    entries, slope = [entry(made.prompt(), *regions(made, hard=hard))], normal(1, *made.shape, seed=6)

    in_place = known_family(made.network).in_place

    def gradient(largest):
        keeping = overwriting_allowed() if in_place else nullcontext()
        differentiate_rope()
        with torch.enable_grad(), keeping:
            x = made.state().requires_grad_()
            out = evaluate(made, entries, x=x, memory=Memory(largest))
            return torch.autograd.grad((out * slope).sum(), x)[0]

    assert_close(gradient(BY_MERGE), gradient(BY_BIAS))


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_an_override_of_another_pack_goes_on_with_the_mask(no_gradients, weight):
    """It may look for the text in what it is given, so it gets the whole attention whatever its size."""
    made, calls = small("Flux"), []

    def louder(attend, q, k, v, heads, *args, **kwargs):
        calls.append(kwargs["mask"].shape)
        return 1.1 * attend(q, k, v, heads, *args, **kwargs)

    entries = [entry(made.prompt(), *regions(made, weight))]
    found = [evaluate(made, entries, memory=Memory(size), override=louder) for size in (BY_BIAS, BY_MERGE)]
    assert torch.equal(*found) and len(set(calls)) == 1
    assert (found[0] - evaluate(made, entries)).abs().max() > 1e-3


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_one_that_drops_masks_does_its_part_without(no_gradients, caplog, weight):
    """Found out at the first attention; where all weights are 1 it evaluates the others, part by part."""
    made, calls = small("Flux"), []

    def forgetful(attend, q, k, v, heads, *args, **kwargs):
        calls.append((q.shape[2], k.shape[2]))
        return attend(q, k, v, heads, **{**kwargs, "mask": None})

    entries = [entry(made.prompt(), *regions(made, weight))]
    memory = Memory(BY_BIAS)
    with caplog.at_level(logging.WARNING):
        found = evaluate(made, entries, memory=memory, override=forgetful)
    assert caplog.text.count("ignores masks") == 1
    whole = [call for call in calls if call[0] == call[1] == max(calls)[0]]
    assert len(whole) == 1, "a shape is tried once"
    # Cells of the left, of both and of the right, with the prompt's words in one of their own; two regions' words.
    blocks = known_family(made.network).count(made.network)
    assert len(calls) - 1 == (6 * (blocks - 1) if weight == 1 else 0)
    assert_close(found, evaluate(made, entries, memory=Memory(BY_BIAS)))


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_fast_kernel_that_was_chosen_is_used(no_gradients, monkeypatch, weight):
    """Large masks are not even tried on it."""
    made, calls = small("SD 3"), []
    module = comfy.ldm.modules.attention

    @module.wrap_attn
    def fast(q, k, v, heads, mask=None, **kwargs):
        calls.append(mask)
        return module.attention_pytorch(q, k, v, heads, **kwargs)

    entries = [entry(made.prompt(), *regions(made, weight))]
    expected = evaluate(made, entries, memory=Memory(BY_BIAS))
    monkeypatch.setattr("comfy.ldm.modules.diffusionmodules.mmdit.optimized_attention", fast)
    assert_close(evaluate(made, entries, memory=Memory(BY_MERGE)), expected)
    assert bool(calls) == (weight == 1) and all(mask is None for mask in calls)


def test_an_attention_with_a_mask_of_its_own_keeps_it(no_gradients, monkeypatch):
    """As Qwen-Image's padded prompts have in newer versions."""
    made = small("Flux")
    ours, masks = TransformerForward.attend, []

    def padded(self, attend, q, k, v, heads, *args, **kwargs):
        masks.append(torch.zeros(1, 1, k.shape[2]))
        masks[-1][..., 2] = -1e4
        return ours(self, attend, q, k, v, heads, *args, **{**kwargs, "mask": masks[-1]})

    entries = [entry(made.prompt(), *regions(made))]
    plain = evaluate(made, entries)
    monkeypatch.setattr(TransformerForward, "attend", padded)
    found = [evaluate(made, entries, memory=Memory(size)) for size in (BY_BIAS, BY_MERGE)]
    assert torch.equal(*found) and masks
    assert (found[0] - plain).abs().max() > 1e2 * CLOSE


def test_masks_that_overlap_in_too_many_ways_keep_the_mask(no_gradients, monkeypatch):
    made = small("Flux")
    monkeypatch.setattr("stagecraft.core.soft_guidance.comfy.transformers.MOST_PARTS", 4)
    memory, entries = Memory(BY_MERGE), [entry(made.prompt(), *regions(made))]
    assert torch.equal(evaluate(made, entries, memory=memory), evaluate(made, entries, memory=Memory(BY_BIAS)))
    assert memory.biases
