"""Two things with a LoRA each, on every kind of model: neither reaches the other one's place."""

import comfy.hooks
import comfy.sample
import pytest
import torch
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings, Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.families import CELL, FAMILIES, build_family

pytestmark = pytest.mark.usefixtures("no_gradients")
SIZE = (4, 6)
PROMPT, NEGATIVE = "a dog and a cat on a green meadow", "blurry"
THINGS = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return build_family(request.param)


def encode(family, text):
    return family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text))


def lora(family, seed):
    """On all values and outputs of attention, by the names that every family has."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, weight in family.model.model.diffusion_model.named_parameters():
        if weight.ndim == 2 and any(part in name for part in ("attn", "to_v", "to_out", "proj", ".v.", "linear")):
            key = f"diffusion_model.{name.removesuffix('.weight')}"
            found[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
            found[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    return found


def painted(family, loras, mode, steps):
    settings = []
    for name, weights in loras.items():
        hooks = comfy.hooks.create_hook_lora(weights, strength_model=0.3, strength_clip=0.0)
        prompt = comfy.hooks.set_conds_props([encode(family, name)], 1.0, "default", hooks=hooks)[0]
        settings.append(LayerSettings(name, positive=prompt))
    layout = parse_layout(THINGS, width=CELL * SIZE[1], height=CELL * SIZE[0], background="on a meadow")
    rendering = Rendering(1.0, 0.0, mode=mode, settings=settings)
    model, *prompts = render_in_layers(
        family.model, family.clip, None, layout, encode(family, PROMPT), encode(family, NEGATIVE), rendering
    )
    latent = family.latent(*SIZE)
    noise = comfy.sample.prepare_noise(latent, 7)
    how = steps, 2.0, "euler", "simple"
    return comfy.sample.sample(model, noise, *how, *prompts, latent, seed=7, disable_pbar=True)


# In mode paper the layers share a latent, so after one step they see each other; trajectories never do before t0.
@pytest.mark.parametrize(("mode", "steps"), [("paper", 1), ("trajectories", 3)])
def test_each_thing_wears_its_own(family, mode, steps):
    dog, cat = lora(family, 1), lora(family, 2)
    both = painted(family, {"a dog": dog, "a cat": cat}, mode, steps)
    none = painted(family, {}, mode, steps)
    for name, weights, half in (("a dog", dog, slice(0, 3)), ("a cat", cat, slice(3, 6))):
        alone = painted(family, {name: weights}, mode, steps)
        other = slice(3, 6) if half.start == 0 else slice(0, 3)
        # Entries with other hooks are evaluated in other batches, which round otherwise.
        assert (both[..., half] - alone[..., half]).abs().max() < 1e-4 * none.std(), "the other one's bleeds in"
        assert (alone[..., other] - none[..., other]).abs().max() < 1e-4 * none.std(), "it bleeds out"
        assert (alone[..., half] - none[..., half]).abs().max() > 1e-2 * none.std(), "it does nothing"
