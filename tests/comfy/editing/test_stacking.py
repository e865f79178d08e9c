"""Editing beside LoRAs, ControlNets, stock nodes and other vision guidance, and on every family of models."""

import comfy.hooks
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, DisableNoise, RandomNoise, SamplerCustomAdvanced
from stagecraft.core.editing.edits import EditError, insert, move
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.editing.small_edits import CFG, DOG, SIZE, STEPS, cells, corner, edited, picture, sample
from stagecraft.tests.comfy.families import FAMILIES, build_family

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_with_a_lora_a_control_net_and_stock_nodes(model, clip, vae, prompts, control_net):
    generator = torch.Generator().manual_seed(5)
    key, weight = next((n, w) for n, w in model.model.diffusion_model.named_parameters() if "attn2.to_v" in n)
    name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
    lora = {
        f"{name}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, weight.shape[1], generator=generator),
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0)
    hint = torch.rand(1, SIZE, SIZE, 3, generator=generator)
    controlled = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control_net, hint, 0.8, 0.0, 1.0)
    plain = sample(model, prompts, vae.encode(picture()))
    results = []
    for base, given in ((model, prompts), (patched, prompts), (model, controlled)):
        ours, our_prompts, latent, mask = edited(base, clip, vae, [insert(DOG)], given)
        found = sample(ours, our_prompts, latent)
        outside = (cells(mask) == 0).expand_as(latent)
        assert torch.equal(found[outside], latent[outside])
        assert all(not torch.equal(found, other) for other in results)
        results.append(found)
    (guider,) = CFGGuider.execute(ours, *our_prompts, CFG).args
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    euler = comfy.samplers.sampler_object("euler")
    for noise, refused in ((RandomNoise.execute(7).args[0], False), (DisableNoise.execute().args[0], True)):
        if refused:
            with pytest.raises(EditError, match="adds no noise"):
                SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, {"samples": latent})
        else:
            advanced = SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, {"samples": latent})[0]
            torch.testing.assert_close(advanced["samples"], results[-1])
    assert torch.equal(sample(model, prompts, vae.encode(picture())), plain)


def test_vision_guidance_of_another_kind_and_loras_on_prompts(model, clip, vae, prompts):
    plain = sample(model, prompts, vae.encode(picture()))
    key, weight = next((n, w) for n, w in model.model.diffusion_model.named_parameters() if "attn2.to_v" in n)
    name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
    generator = torch.Generator().manual_seed(5)
    lora = {
        f"{name}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, weight.shape[1], generator=generator),
    }
    hook = comfy.hooks.create_hook_lora(lora, 0.5, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompts[0], hook), prompts[1]
    dynamic = {"guidance": VisionGuidance("dynamic", top_k=5)}
    results = []
    for given, more in ((prompts, {}), (prompts, dynamic), (hooked, {})):
        ours, our_prompts, latent, mask = edited(model, clip, vae, [insert(DOG)], given, **more)
        found = sample(ours, our_prompts, latent)
        outside = (cells(mask) == 0).expand_as(latent)
        assert torch.isfinite(found).all() and torch.equal(found[outside], latent[outside])
        assert all(not torch.equal(found, other) for other in results)
        results.append(found)
    assert torch.equal(sample(model, prompts, latent), plain)


@pytest.mark.parametrize("name", FAMILIES)
def test_on_every_family_pictures_and_videos(name):
    family = build_family(name)
    frames = 4 * (family.frames[0] - 1) + 1 if family.frames else 1
    image = picture(frames, 64, 96)
    texts = (encode(family.clip, PROMPT), encode(family.clip, NEGATIVE))
    edits = [insert(DOG), move(corner(64, 96), "a cat", 0.0, 0.4)]
    ours, our_prompts, latent, mask = edited(family.model, family.clip, family.vae, edits, texts, image)
    assert latent.shape == family.latent(8, 12).shape
    found = sample(ours, our_prompts, latent, steps=3)
    free = cells(mask).reshape((1,) * (latent.ndim - 2) + (8, 12)).expand_as(latent)
    assert torch.isfinite(found).all()
    assert torch.equal(found[free == 0], latent[free == 0]) and (free == 0).any()
    assert (found - latent)[free == 1].abs().min() > 0
