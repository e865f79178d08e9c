"""Attention guidance in samplers on every transformer: nothing asked, nothing done; asked, the energy falls."""

import comfy.model_management
import comfy.sample
import pytest
import torch
from stagecraft.core.attention.sites import ALL_BLOCKS, FOUND, QUARTER
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.attention_guidance.step import NORMALISED, PLAIN, RULES
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.region import Region
from stagecraft.tests.comfy.attention_guidance.guided import assert_same_picture, guide
from stagecraft.tests.comfy.attention_guidance.transformer_models import RandomText, small_model
from stagecraft.tests.comfy.transformers import TRANSFORMERS

pytestmark = pytest.mark.usefixtures("no_gradients")
PROMPT, NEGATIVE = "a dog and a cat", "blurry and dark"
STEPS, END = 3, 0.5  # two of three steps are guided


@pytest.fixture(scope="module")
def text():
    return RandomText()


def encode(text, prompt):
    return text.encode_from_tokens_scheduled(text.tokenize(prompt))


def layout_for(model, prompt=PROMPT, **boxes):
    """A dog on the left, a cat below on the right, or other boxes."""
    height, width = (8 * side for side in model.model.made.shape[-2:])
    boxes = boxes or {"dog": (0.0, 0.0, 0.5, 1.0), "cat": (0.5, 0.5, 1.0, 1.0)}
    return Layout(width, height, prompt, "", tuple(Region(f"a {name}", box=box) for name, box in boxes.items()))


def sample(model, text, *, batch=1, cfg=2.0, prompt=PROMPT, noise=None):
    latent = torch.zeros(batch, *model.model.made.shape)
    noise = comfy.sample.prepare_noise(latent, 7) if noise is None else noise
    prompts = encode(text, prompt), encode(text, NEGATIVE)
    return comfy.sample.sample(
        model, noise, STEPS, cfg, "euler", "simple", *prompts, torch.zeros_like(noise), seed=7, disable_pbar=True
    )


def falls(log, found):
    """Whether the energies of every guided call fall."""
    (run,) = log.find(found)
    calls = {}
    for each in run.measurements:
        calls.setdefault(each.call, []).append(torch.tensor(each.energies))
    return len(calls) == 2 and all(bool((each[-1] < each[0]).all()) for each in calls.values())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_strength_0_is_the_plain_model_and_more_lowers_the_energy(name, text):
    model, log = small_model(name), GuidanceLog()
    layout = layout_for(model)
    plain = sample(model, text)
    assert torch.equal(sample(guide(model, text, layout, strength=0.0), text), plain)
    how = dict(step_rule=NORMALISED, iterations=3, threshold=-torch.inf, end_at=END)
    found = sample(guide(model, text, layout, log=log, **how), text)
    assert torch.isfinite(found).all() and not torch.equal(found, plain) and falls(log, found)
    assert torch.equal(sample(model, text), plain), "something is left behind"


@pytest.mark.parametrize(("name", "rule"), [*(("Qwen-Image", rule) for rule in RULES), ("Flux", PLAIN), ("Wan", PLAIN)])
@pytest.mark.parametrize("energy", ENERGIES)
def test_every_energy_falls_by_every_rule(name, energy, rule, text):
    model, log = small_model(name), GuidanceLog()
    strength = 0.5 if rule == NORMALISED else 2.0
    how = dict(energy=energy, step_rule=rule, strength=strength, iterations=3, threshold=-torch.inf, end_at=END)
    found = sample(guide(model, text, layout_for(model), log=log, **how), text, cfg=1.0)
    assert falls(log, found)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["Flux", "SD 3", "Wan", "Z-Image"])
def test_checkpointing_and_inference_mode_change_nothing(name, checkpointing, text):
    found = []
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            model = small_model(name)
            how = dict(energy="refocusing", checkpointing=checkpointing and mode is not None, end_at=END, strength=3.0)
            found.append(sample(guide(model, text, layout_for(model), **how), text).clone())
    assert_same_picture(found[1], found[0])


@pytest.mark.parametrize("energy", ["chen", "boxdiff"])
@pytest.mark.parametrize("name", ["Flux", "Qwen-Image", "Wan"])
def test_layouts_of_a_batch_are_guided_each_by_itself(name, energy, text):
    """Also those whose prompts have other lengths, which a transformer cannot take in one evaluation."""
    model = small_model(name)
    layouts = [
        layout_for(model),
        layout_for(model, "a cat and a dog", cat=(0.0, 0.0, 1.0, 0.5)),
        layout_for(model, "a very small red cat", cat=(0.0, 0.5, 0.5, 1.0)),
    ]
    noise = torch.randn(3, *model.model.made.shape, generator=torch.Generator().manual_seed(3))
    how = dict(energy=energy, sites=ALL_BLOCKS, strength=5.0, iterations=2, threshold=-torch.inf, end_at=END)
    together = sample(guide(model, text, layouts, **how), text, noise=noise)
    for i, layout in enumerate(layouts):
        alone = sample(guide(model, text, layout, **how), text, noise=noise[i : i + 1])
        assert_same_picture(together[i : i + 1], alone)
        assert not torch.equal(alone, sample(model, text, noise=noise[i : i + 1]))


def test_blocks_are_found_once_or_chosen_by_number(text):
    model = small_model("Flux")
    layout = layout_for(model)
    asked = []

    def count(executor, x, *args, **kwargs):
        asked.append(len(x))
        return executor(x, *args, **kwargs)

    counted = model.clone()
    counted.add_wrapper_with_key("apply_model", "test", count)
    how = dict(step_rule=NORMALISED, iterations=2, threshold=-torch.inf, end_at=END)

    def run(sites):
        asked.clear()
        return sample(guide(counted, text, layout, sites=sites, **how), text, cfg=1.0)

    found = run(FOUND)
    # One look, two guided steps of two moves, and the sampler's own three steps.
    assert len(asked) == 1 + 2 * 2 + STEPS
    assert torch.equal(run(QUARTER), found), "a U-Net's places are those that are found"
    last = run("3")
    assert len(asked) == 2 * 2 + STEPS
    assert not torch.equal(last, run("0-1"))
    with pytest.raises(ValueError, match="No attention to the prompt could be read"):
        run("40")


def test_cancelling_in_the_backward_pass(text):
    model = small_model("Flux")
    plain, interrupt = sample(model, text), comfy.model_management.interrupt_current_processing

    def cancel(attend, q, *args, **kwargs):
        if q.requires_grad:
            q.register_hook(lambda gradient: interrupt(True))
        return attend(q, *args, **kwargs)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = cancel
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(guide(other, text, layout_for(model)), text)
    finally:
        interrupt(False)
    assert torch.equal(sample(model, text), plain)
