"""CnC in a real sampler: what the U-Net is given, and when; what is refused; the node."""

import gc
import weakref

import comfy.model_management
import comfy.sd
import pytest
import torch
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.compose_and_conquer.comfy.compose import Looks, compose_depth
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars
from stagecraft.core.compose_and_conquer.comfy.files import load_cnc
from stagecraft.core.compose_and_conquer.depth_maps import Depths
from stagecraft.core.compose_and_conquer.files import write_fusers
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.core.soft_guidance.soft_guidance import AREA
from stagecraft.nodes.compose_and_conquer.compose import StageDepthCompose
from stagecraft.sticker_world.compose_and_conquer.train import LOCAL
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import (
    CONFIG,
    CONTEXT,
    STEPS,
    as_maps,
    assert_same,
    compose,
    half_mask,
    looks,
    residuals_of,
    sample,
    seen,
)
from stagecraft.tests.comfy.families import build_family

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_its_encoder_is_the_unets(model, size):
    """A clone whose denormalisations are the U-Net's norms, and whose last layers hand on, sees what the U-Net sees."""
    unet = model.model.diffusion_model
    fuser = LocalFuser(CONFIG)
    fuser.load_encoder(unet.state_dict())
    for number, block in enumerate(fuser.input_blocks):
        for name, key in (("norm_in", "in_layers.0"), ("norm_out", "out_layers.0")):
            if (norm := getattr(block[0], name, None)) is not None:
                own = unet.get_submodule(f"input_blocks.{number}.0.{key}")
                for conv, bias in ((norm.conv_gamma, own.weight - 1), (norm.conv_beta, own.bias)):
                    conv.weight.zero_()
                    conv.bias.copy_(bias)
    for conv in (*fuser.zero_convs, fuser.middle_block_out):
        torch.nn.init.dirac_(conv[0].weight)
    states = []
    lasts = (*(block[-1] for block in unet.input_blocks), unet.middle_block[-1])
    hooks = [last.register_forward_hook(lambda module, args, out: states.append(out)) for last in lasts]
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(2, 4, *size, generator=generator), torch.randn(2, 77, CONTEXT, generator=generator)
    timesteps = torch.tensor([5.0, 917.0])
    unet(x, timesteps, context, transformer_options={})
    for hook in hooks:
        hook.remove()
    found, middle = fuser(x, timesteps, context, *torch.rand(2, 2, 3, 8 * size[0], 8 * size[1]))
    assert_same([*found, middle], states)


def test_the_embedded_checkpoint_and_its_fusers_fit(folder, depths):
    register_model_class()
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False)
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a dog", "")]
    fuser = LocalFuser(LOCAL)
    fuser.load_encoder(model.model.diffusion_model.state_dict())
    write_fusers(folder / "embedded.safetensors", fuser.state_dict(), None, LOCAL.num_head_channels)
    embedded = load_cnc("embedded.safetensors")
    assert embedded.config.matches(model.model.model_config.unet_config) is None
    prepared = compose(model, *prompts, embedded, foreground=depths[0], background=depths[1])
    assert torch.equal(sample(prepared), sample((model, *prompts)))


def test_a_fresh_fuser_leaves_sampling_bit_identical(model, prompts, folder, depths):
    plain = sample((model, *prompts))
    prepared = compose(model, *prompts, load_cnc("fresh.safetensors"), foreground=depths[0], background=depths[1])
    calls = seen(prepared)
    assert all(not residual.any() for call in calls for residual in call[3])
    assert torch.equal(sample(prepared), plain)


def test_a_plain_run_before_and_after_is_bit_identical(model, prompts, cnc, depths):
    before = sample((model, *prompts))
    prepared = compose(
        model, *prompts, cnc, foreground=depths[0], background=depths[1], exemplars=looks(), mask=half_mask()
    )
    composed = sample(prepared)
    assert not torch.allclose(composed, before, atol=1e-2)
    assert torch.equal(sample((model, *prompts)), before) and torch.equal(sample(prepared), composed)


def test_both_rows_get_the_maps_and_residuals_are_the_fusers(model, prompts, cnc, depths):
    calls = seen(compose(model, *prompts, cnc, foreground=depths[0], background=depths[1]))
    assert sum(len(call[0]) for call in calls) == 2 * STEPS
    for call in calls:
        assert_same(call[3], residuals_of(cnc, call, as_maps(depths)))


def test_swapped_maps_are_not_the_same_picture(model, prompts, cnc, depths):
    first, second = (
        sample(compose(model, *prompts, cnc, foreground=front, background=behind))
        for front, behind in (depths, depths.flip(0))
    )
    assert not torch.allclose(first, second, atol=1e-2)


def test_a_missing_map_is_one_of_zeros(model, prompts, cnc, depths):
    zeros = torch.zeros_like(depths[0])
    for given in ((depths[0], None), (None, depths[1]), (None, None)):
        missing = sample(compose(model, *prompts, cnc, foreground=given[0], background=given[1]))
        filled = [zeros if depth is None else depth for depth in given]
        assert torch.equal(missing, sample(compose(model, *prompts, cnc, foreground=filled[0], background=filled[1])))


@pytest.mark.parametrize(
    ("strength", "expected"), [(0.0, torch.zeros_like), (2.0, lambda depth: (2 * depth).clamp(0, 1))]
)
def test_depth_strengths_multiply_the_maps(model, prompts, cnc, depths, strength, expected):
    given = {"foreground": depths[0], "background": depths[1]}
    call = seen(compose(model, *prompts, cnc, **given, foreground_strength=strength))[0]
    maps = [expected(as_maps(depths)[0]), as_maps(depths)[1]]
    assert_same(call[3], residuals_of(cnc, call, maps))
    call = seen(compose(model, *prompts, cnc, **given, background_strength=strength))[0]
    maps = [as_maps(depths)[0], expected(as_maps(depths)[1])]
    assert_same(call[3], residuals_of(cnc, call, maps))


@pytest.mark.parametrize("scale", [0.5, [0.0, 1.0, 2.0, 0.5, 3.0]])
def test_residual_scales(model, prompts, cnc, depths, scale):
    prepared = compose(model, *prompts, cnc, foreground=depths[0], background=depths[1], residual_scale=scale)
    call = seen(prepared)[0]
    scales = scale if isinstance(scale, list) else [scale] * 5
    expected = [s * r for s, r in zip(scales, residuals_of(cnc, call, as_maps(depths)), strict=True)]
    assert_same(call[3], expected)


def test_scale_zero_is_the_plain_run(model, prompts, cnc, depths):
    prepared = compose(model, *prompts, cnc, foreground=depths[0], residual_scale=0.0)
    assert prepared[0] is model and prepared[1] is prompts[0] and prepared[2] is prompts[1]


@pytest.mark.parametrize(("start", "end", "controlled"), [(0.0, 0.4, [0]), (0.4, 1.0, [1, 2]), (0.0, 1.0, [0, 1, 2])])
def test_start_and_end(model, prompts, cnc, depths, start, end, controlled):
    prepared = compose(model, *prompts, cnc, foreground=depths[0], start_at=start, end_at=end)
    calls = seen(prepared)
    timesteps = sorted({float(call[1][0]) for call in calls}, reverse=True)
    found = {timesteps.index(float(call[1][0])) for call in calls if call[3] is not None}
    sampling = model.get_model_object("model_sampling")
    limits = [float(sampling.timestep(torch.tensor(sampling.percent_to_sigma(share)))) for share in (start, end)]
    expected = {i for i, t in enumerate(timesteps) if limits[1] <= t <= limits[0]}
    assert found == expected == set(controlled)


def test_maps_are_looked_at_once_per_run_and_forgotten_after_it(model, prompts, cnc, depths, monkeypatch):
    """Also after a run that was interrupted, which ComfyUI does not tell control objects."""
    plain, made = cnc.local.model.modulations, []

    def watched(*maps):
        found = plain(*maps)
        made.append(weakref.ref(found[0][0][0]))
        return found

    def interrupt(step, *_):
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    monkeypatch.setattr(cnc.local.model, "modulations", watched)
    prepared = compose(model, *prompts, cnc, foreground=depths[0])
    sample(prepared)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(prepared, callback=interrupt)
    gc.collect()
    assert [each() for each in made] == [None, None]


def test_an_output_that_is_not_connected_is_named(model, prompts, cnc, depths, caplog):
    prepared = compose(model, *prompts, cnc, foreground=depths[0])
    with pytest.raises(ValueError, match=r"the model does not\. Connect the model output of Depth Compose"):
        sample((model, *prepared[1:]))
    assert "depths" not in caplog.text  # newer versions of ComfyUI have something to say about other models
    assert torch.equal(sample((prepared[0], *prompts)), sample((model, *prompts)))
    assert "the prompts do not; sampling without depths" in caplog.text


@pytest.mark.parametrize("name", ["SDXL", "SD3", "Flux", "QwenImage", "WAN21_T2V"])
def test_another_family_is_refused_in_one_sentence(name, cnc):
    family = build_family(name)
    prompt = family.clip.encode_from_tokens_scheduled(family.clip.tokenize("a dog"))
    with pytest.raises(ValueError, match=r"These CnC fusers belong to .*; the connected model .* Load a checkpoint of"):
        compose(family.model, prompt, prompt, cnc)


def test_what_cannot_be_meant_is_refused(model, prompts, cnc, folder):
    with pytest.raises(ValueError, match="The mask keeps the looks of exemplars"):
        compose(model, *prompts, cnc, mask=half_mask())
    for start, end in ((0.5, 0.5), (1.0, 1.5), (-1.0, 0.0)):
        with pytest.raises(ValueError, match=f"start_at is {start:g} and end_at {end:g}"):
            compose(model, *prompts, cnc, start_at=start, end_at=end)
    flat = torch.full((1, 64, 64, 3), torch.nan)
    for name in ("foreground", "background"):
        with pytest.raises(ValueError, match=f"The {name} depth has values that are not numbers"):
            compose(model, *prompts, cnc, **{name: flat})
    with pytest.raises(ValueError, match="There are 2 residual scales; expected one, or 5"):
        compose(model, *prompts, cnc, residual_scale=[1.0, 1.0])
    strange = Exemplars(torch.zeros(1, 4, 5), torch.zeros(1, 4, 5))
    for mask in (None, half_mask()):
        with pytest.raises(ValueError, match=r"tokens have width 5, but the prompts have 16\. Make"):
            compose(model, *prompts, cnc, exemplars=strange, mask=mask)
    with pytest.raises(ValueError, match="splits 64 channels into 2 heads, the CnC file into 8"):
        compose(model, *prompts, load_cnc("wrong_heads.safetensors"))


def test_the_node_hands_on_every_input(model, prompts, cnc, depths):
    given = {
        "foreground_depth_strength": 0.5,
        "background_depth_strength": 1.5,
        "residual_scale": 0.7,
        "start_at": 0.1,
        "end_at": 0.9,
        "foreground_depth": depths[0],
        "background_depth": depths[1],
        "exemplars": looks(),
        "mask": half_mask(),
        "mask_rule": AREA,
    }
    found = sample(StageDepthCompose.execute(model, *prompts, cnc, **given).args)
    asked = Depths(depths[0], depths[1], 0.5, 1.5, residual_scale=0.7, start_at=0.1, end_at=0.9)
    expected = compose_depth(model, *prompts, cnc, asked, Looks(looks(), half_mask(), AREA))
    assert torch.equal(found, sample(expected))
    assert "nothing" in StageDepthCompose.validate_inputs(0.6, 0.6) and StageDepthCompose.validate_inputs(0.0, None)
