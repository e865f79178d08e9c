"""Regions that wear a LoRA by a layout's text: their passes of the model have it, and no other."""

import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from safetensors.torch import save_file
from stagecraft.core.layered_rendering.comfy.loras import find_lora
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.layout import LayoutError
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.families import CELL, build_family
from stagecraft.tests.comfy.layered_rendering.small_runs import FULL, assert_same_picture, layered, sample
from stagecraft.tests.comfy.layered_rendering.test_loras_of_families import lora as family_lora
from stagecraft.tests.comfy.model_folder import model_folder

pytestmark = pytest.mark.usefixtures("no_gradients")
LEFT, RIGHT = "a dog: 0 0 0.5 1", "a cat: 0.5 0 1 1"
MODES = ("paper", "trajectories")


def weights(model, clip, seed):
    """On attention of the network, and on the text encoder."""
    generator, found = torch.Generator().manual_seed(seed), {}
    parts = (("lora_unet_", model.model.diffusion_model), ("lora_te_", clip.cond_stage_model.clip_l.transformer))
    for prefix, network in parts:
        for name, weight in network.named_parameters():
            if name.endswith(("attn1.to_q.weight", "attn2.to_v.weight", "self_attn.v_proj.weight")):
                key = prefix + name.removesuffix(".weight").replace(".", "_")
                found[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
                found[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    return found


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    with model_folder("loras", tmp_path_factory.mktemp("loras")) as folder:
        yield folder


@pytest.fixture
def dress(model, clip, loras):
    """Two files, and the weights of the first."""
    found = [weights(model, clip, seed) for seed in (5, 6)]
    for name, each in zip(("glow.safetensors", "looks/blocks.safetensors"), found, strict=True):
        (loras / name).parent.mkdir(exist_ok=True)
        save_file(each, loras / name)
    return found


def painted(model, clip, text, prompts, **rendering):
    ours, our_prompts = layered(model, clip, None, text, prompts, **{"strength": 0.0} | rendering)
    return sample(ours, our_prompts, steps=rendering.get("steps", 4))


@pytest.mark.parametrize("mode", MODES)
def test_a_region_that_is_all_of_the_canvas_is_as_with_load_lora(model, clip, prompts, dress, mode):
    """Before t0 and after it, in the prompt's passes and in the negative one's, with the text encoder's part."""
    found = painted(model, clip, f"{FULL} | lora=glow:0.5", prompts, mode=mode)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, dress[0], 0.5, 0.5)
    assert_same_picture(found, painted(patched, patched_clip, FULL, prompts, mode=mode))
    plain = painted(model, clip, FULL, prompts, mode=mode)
    assert (found - plain).abs().max() > 1e-2 * plain.std(), "the LoRA changes nothing"


def one_step(model, clip, text, prompts, mode, steps):
    """Layers share a latent in mode paper, so that after one step they see each other."""
    ours, our_prompts = layered(model, clip, None, text, prompts, strength=0.0, mode=mode, t0=1.0)
    return sample(ours, our_prompts, steps=steps)


@pytest.mark.parametrize(("mode", "steps"), [("paper", 1), ("trajectories", 3)])
def test_nobody_else_wears_it(model, clip, prompts, dress, mode, steps):
    none = one_step(model, clip, f"{LEFT}\n{RIGHT}", prompts, mode, steps)
    left = one_step(model, clip, f"{LEFT} | lora=glow:0.5\n{RIGHT}", prompts, mode, steps)
    both = one_step(model, clip, f"{LEFT} | lora=glow:0.5\n{RIGHT} | lora=blocks", prompts, mode, steps)
    size = none.std()
    assert (left - none)[..., 4:].abs().max() < 1e-4 * size, "it bleeds out"
    assert (left - none)[..., :4].abs().max() > 1e-2 * size, "it does nothing"
    assert (both - left)[..., :4].abs().max() < 1e-4 * size, "the other one's bleeds in"
    assert (both - left)[..., 4:].abs().max() > 1e-2 * size


@pytest.mark.parametrize("mode", MODES)
def test_strength_0_is_without_it_bit_for_bit(model, clip, prompts, dress, mode):
    none = painted(model, clip, f"{LEFT}\n{RIGHT}", prompts, mode=mode)
    assert torch.equal(
        painted(model, clip, f"{LEFT} | lora=glow:0\n{RIGHT} | lora=unknown:0", prompts, mode=mode), none
    )
    painted(model, clip, f"{LEFT} | lora=glow\n{RIGHT}", prompts, mode=mode)
    assert torch.equal(painted(model, clip, f"{LEFT}\n{RIGHT}", prompts, mode=mode), none), "it stays on the model"


def test_several_add_up(model, clip, prompts, dress):
    found = painted(model, clip, f"{FULL} | lora=glow:0.5, blocks:-0.25", prompts)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, dress[0], 0.5, 0.5)
    patched, patched_clip = comfy.sd.load_lora_for_models(patched, patched_clip, dress[1], -0.25, -0.25)
    assert_same_picture(found, painted(patched, patched_clip, FULL, prompts))


def test_every_picture_of_a_batch_has_its_own(model, clip, prompts, dress):
    texts = (f"{LEFT} | lora=glow\n{RIGHT}", f"{LEFT}\n{RIGHT} | lora=blocks")
    layouts = [parse_layout(text, width=64, height=64) for text in texts]
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def of(layout, noise):
        ours, *own = render_in_layers(model, clip, None, layout, *prompts, Rendering(0.5, 0.0))
        return sample(ours, own, batch=len(noise), noise=noise)

    together = of(layouts, noise)
    for row, layout in enumerate(layouts):
        assert_same_picture(together[row : row + 1], of(layout, noise[row : row + 1]))


def test_names_with_and_without_folder_and_ending(loras, dress):
    spelt = ("blocks", "Blocks.safetensors", "looks/blocks", "looks\\blocks.safetensors")
    assert {find_lora(name, "a dog").replace("\\", "/") for name in spelt} == {"looks/blocks.safetensors"}
    (loras / "old").mkdir(exist_ok=True)
    save_file(dress[0], loras / "old" / "blocks.safetensors")
    try:
        with pytest.raises(LayoutError, match="several files could be: .*Write the folder too"):
            find_lora("blocks", "a dog")
        assert find_lora("old/blocks", "a dog").replace("\\", "/") == "old/blocks.safetensors"
    finally:
        (loras / "old" / "blocks.safetensors").unlink()


def test_an_unknown_name_lists_the_nearest(model, clip, prompts, dress):
    with pytest.raises(LayoutError, match=r'"a dog" wears the LoRA "glwo", but .*nearest are glow, '):
        layered(model, clip, None, f"{LEFT} | lora=glwo:0.8", prompts)


def test_a_lora_of_another_model_is_refused(model, clip, prompts, loras):
    save_file({"lora_unet_nowhere.lora_up.weight": torch.ones(4, 2)}, loras / "other.safetensors")
    with pytest.raises(ValueError, match=r'"other.safetensors" of the region "a dog" has nothing for this model'):
        layered(model, clip, None, f"{LEFT} | lora=other", prompts)
    (loras / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r'"broken.safetensors" of the region "a dog" cannot be read'):
        layered(model, clip, None, f"{LEFT} | lora=broken", prompts)


@pytest.mark.parametrize("kind", ["Flux", "SDXL"])
def test_on_other_families(kind, loras):
    family = build_family(kind)
    save_file(family_lora(family, 1), loras / f"{kind}.safetensors")
    prompts = [encode(family.clip, text) for text in ("a dog and a cat", "blurry")]

    def paint(text):
        layout = parse_layout(text, width=6 * CELL, height=4 * CELL, background="on a meadow")
        model, *own = render_in_layers(family.model, family.clip, None, layout, *prompts, Rendering(1.0, 0.0))
        latent = family.latent(4, 6)
        noise = comfy.sample.prepare_noise(latent, 7)
        return comfy.sample.sample(model, noise, 1, 2.0, "euler", "simple", *own, latent, seed=7, disable_pbar=True)

    none, left = paint(f"{LEFT}\n{RIGHT}"), paint(f"{LEFT} | lora={kind}:0.3\n{RIGHT}")
    assert (left - none)[..., 3:].abs().max() < 1e-4 * none.std()
    assert (left - none)[..., :3].abs().max() > 1e-2 * none.std()
