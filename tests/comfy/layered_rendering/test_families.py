"""Layered rendering on every kind of model that ComfyUI samples: U-Nets and transformers, pictures and videos."""

import comfy.clip_vision
import comfy.ldm.flux.redux
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_context_windows import WanContextWindowsManualNode
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.families import CELL, FAMILIES, WIDTH, Family, build_family, fill
from stagecraft.tests.comfy.signatures import accepted

import nodes as comfy_nodes

MODES = ("paper", "trajectories")
U_NETS = ("SD15", "SDXL")  # the others are flow transformers
STEPS, CFG, T0 = 3, 2.0, 0.5  # in every family two of three steps lie before a half of the run
SIZES = ((4, 6), (5, 7))  # height and width in cells; odd ones do not divide into a transformer's patches
PROMPT, NEGATIVE, BACKGROUND = "a dog and a cat on a green meadow", "blurry", "on a meadow"
DOG, CAT = (0, 1, 3, 4), (4, 0, 6, 3)  # cells
COLOURS = {"a dog": (1.0, 0.0, 0.0), "a cat": (0.0, 0.0, 1.0)}


pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return build_family(request.param)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(params=SIZES, ids=["even", "odd"])
def size(request):
    return request.param


def encode(family, text):
    return family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text))


def sample(family, model=None, prompts=None, size=SIZES[0], *, noise=None, steps=STEPS, cfg=CFG):
    prompts = prompts or (encode(family, PROMPT), encode(family, NEGATIVE))
    latent = family.latent(*size)
    noise = comfy.sample.prepare_noise(latent, 7) if noise is None else noise
    latent = latent.expand_as(noise)
    how = steps, cfg, "euler", "simple"
    return comfy.sample.sample(model or family.model, noise, *how, *prompts, latent, seed=7, disable_pbar=True)


def layered(family, text, mode, size=SIZES[0], *, model=None, prompts=None, strength=1.0, t0=T0, **more):
    height, width = size
    layout = parse_layout(text, width=CELL * width, height=CELL * height, background=BACKGROUND)
    prompts = prompts or (encode(family, PROMPT), encode(family, NEGATIVE))
    objects = model or family.model, family.clip, family.vae
    prepared = render_in_layers(*objects, layout, *prompts, Rendering(t0, strength, mode=mode, **more))
    return prepared[0], prepared[1:]


def in_windows(model):
    """Evaluated a few frames at a time."""
    execute = WanContextWindowsManualNode.execute
    settings = 5, 0, "standard_static", 1, False, "flat"
    return execute(model, *settings, **accepted(execute, freenoise=False)).args[0]


def two(size, dog="a dog"):
    """A red dog and a blue cat on whole cells."""
    height, width = size
    sides = (width, height) * 2
    left, right = (" ".join(f"{edge / side:.9f}" for edge, side in zip(box, sides, strict=True)) for box in (DOG, CAT))
    return f"a dog: {left} | {dog} | colour=#ff0000\na cat: {right} | colour=#0000ff"


def cells(box, size):
    inside = torch.zeros(size)
    x0, y0, x1, y1 = box
    inside[y0:y1, x0:x1] = 1
    return inside


def assert_same(found, expected):
    """Equal to 1e-4 of the picture's own size; random weights may give large ones."""
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)


def assert_different(found, other):
    assert torch.isfinite(found).all()
    assert (found - other).abs().max() > 1e-2 * other.std()


def test_one_full_layer_without_delta_is_plain_sampling(family, mode, size):
    ours, prompts = layered(family, f"{PROMPT}: 0 0 1 1", mode, size)
    assert torch.equal(sample(family, ours, prompts, size), sample(family, size=size))


def test_two_coloured_regions_and_plain_sampling_around_them(family, mode, size):
    before = sample(family, size=size)
    assert before.std() > 0.1
    ours, prompts = layered(family, two(size), mode, size)
    assert_different(sample(family, ours, prompts, size), before)
    assert torch.equal(sample(family, size=size), before)


def test_delta_reaches_the_model_with_its_sign(family, mode):
    found = {s: sample(family, *layered(family, two(SIZES[0]), mode, strength=s)) for s in (-0.5, 0.0, 0.5)}
    for one, other in ((0.5, 0.0), (-0.5, 0.0), (-0.5, 0.5)):
        assert_different(found[one], found[other])


def test_a_batch_is_its_pictures_one_by_one(family, mode, size):
    noise = comfy.sample.prepare_noise(family.latent(*size, batch=2), 11)
    assert not torch.equal(noise[0], noise[1])
    ours, prompts = layered(family, two(size), mode, size)
    single = [sample(family, ours, prompts, size, noise=each[None]) for each in noise]
    assert_same(sample(family, ours, prompts, size, noise=noise), torch.cat(single))


def test_dynamic_delta(family, mode):
    if family.name in ("QwenImage", "WAN21_T2V"):
        pytest.skip("its stand-in for a text encoder has no words to find")
    dynamic = VisionGuidance(source="dynamic", top_k=4)
    found = [sample(family, *layered(family, two(SIZES[0]), mode, guidance=dynamic, strength=s)) for s in (0.0, 0.5)]
    assert_different(found[1], found[0])


def test_without_a_colour_a_u_net_is_guided_by_itself_and_a_transformer_is_not(family, mode):
    bare = "\n".join(line.split(" | ")[0] for line in two(SIZES[0]).splitlines())
    auto, off, dynamic = (
        sample(family, *layered(family, bare, mode, guidance=VisionGuidance(source, top_k=4), strength=strength))
        for source, strength in (("auto", 0.5), ("auto", 0.0), ("dynamic" if family.name in U_NETS else "auto", 0.5))
    )
    assert torch.equal(auto, off) == (family.name not in U_NETS)
    assert torch.equal(auto, dynamic)


def test_dynamic_delta_names_a_network_that_nobody_knows(family, mode):
    model = family.model.clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Dynamic vectors: .* Linear, .*Choose the source"):
        layered(family, two(SIZES[0]), mode, model=model, guidance=VisionGuidance(source="dynamic"))


# --- the paper's mode, from inside ---


def rows_of_each_step(family, model, prompts, size=SIZES[0], steps=STEPS):
    """What the network is given: for every step the pairs of (c ... h w) and the text's (t c)."""
    rows: dict[float, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def record(network, args, kwargs):
        step = rows.setdefault(args[1][0].item(), [])
        step.extend(zip(args[0].clone(), kwargs["context"].clone(), strict=True))

    handle = family.model.model.diffusion_model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        sample(family, model, prompts, size, steps=steps)
    finally:
        handle.remove()
    return list(rows.values())


def deltas(family, size):
    """What layers add to an input whose noise and data have a size of 1: delta (2 M - 1), the same in every frame."""
    added = {BACKGROUND: torch.zeros_like(family.latent(*size)[0])}
    for phrase, box in (("a dog", DOG), ("a cat", CAT)):
        flat = torch.tensor(COLOURS[phrase]).expand(1, 256, 256, 3).contiguous()
        latent = family.model.model.process_latent_in(family.vae.encode(flat))
        delta = latent.reshape(latent.shape[1], 32, 32)[:, 16, 16]
        assert delta.norm() > 0.1
        added[phrase] = delta.view(-1, *[1] * (latent.ndim - 2)) * (2 * cells(box, size) - 1) + added[BACKGROUND]
    return added


def test_every_layer_sees_its_delta_in_every_frame(family, size):
    """The input of U-Nets always has a size of 1; that of a flow model has it only before the first step."""
    sampling = family.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)
    added = deltas(family, size)
    texts = {phrase: encode(family, phrase)[0][0][0] for phrase in (*added, NEGATIVE)}
    steps = rows_of_each_step(family, *layered(family, two(size), "paper", size), size)
    assert [len(rows) for rows in steps] == [6, 6, 2]
    for sigma, rows in zip(sigmas, steps[:2], strict=False):
        factor = 1.0 if family.name in U_NETS else ((1 - sigma) ** 2 + sigma**2) ** 0.5
        seen = {phrase: [] for phrase in texts}
        for x, text in rows:
            (phrase,) = [name for name, own in texts.items() if own.shape == text.shape and torch.allclose(own, text)]
            seen[phrase].append(x)
        (state,) = seen[BACKGROUND]
        if rows is steps[0]:
            noise = comfy.sample.prepare_noise(family.latent(*size), 7)[0]
            torch.testing.assert_close(state, noise, atol=1e-5, rtol=0)
        for phrase, xi in added.items():
            (found,) = seen[phrase]
            torch.testing.assert_close(found - state, factor * xi, atol=1e-4, rtol=0)
            alike = [each for each in seen[NEGATIVE] if torch.allclose(each, found, atol=1e-5, rtol=0)]
            assert len(alike) == 1, "the negative prompt sees every layer's delta once"


def change_of_one_layer(family, size, model=None):
    """How far a clean prediction moves, (t h w), when only the dog's caption changes."""
    found = []
    for dog in ("a brown dog", "a black dog"):
        ours, prompts = layered(family, two(size, dog), "paper", size, model=model, t0=1.0)
        found.append(sample(family, ours, prompts, size, steps=1, cfg=1.0))
    assert torch.isfinite(found[0]).all()
    return (found[0] - found[1])[0].abs().amax(0).reshape(-1, *size) / found[0].std()


def assert_only_the_dog_changes(change, size):
    inside = cells(DOG, size).bool()
    assert change[:, ~inside].max() < 1e-5
    assert change[:, inside].amax(1).min() > 1e-2, "not in every frame"


def test_a_layer_ends_at_its_mask_in_every_frame(family, size):
    """What a layer says is in its own cells, the same ones in every frame."""
    change = change_of_one_layer(family, size)
    assert len(change) == (family.frames or (1,))[0]
    assert_only_the_dog_changes(change, size)


def test_no_step_counts_twice_or_not_at_all_at_t0(family):
    """A quarter of a flow model's run ends exactly on one of four noise levels; that step is the layers' last."""
    sampling = family.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
    end = torch.tensor(float(sampling.percent_to_sigma(0.25)))
    assert bool(sigmas[1] == end) == (family.name not in U_NETS)
    layered_steps = int((sigmas >= end).sum())
    ours, prompts = layered(family, two(SIZES[0]), "paper", t0=0.25)
    rows = [len(step) for step in rows_of_each_step(family, ours, prompts, steps=4)]
    assert rows == [6] * layered_steps + [2] * (4 - layered_steps)


def test_a_cropped_layer(family):
    """Things of three cells need four; a margin beyond the canvas crops nothing."""
    size, part = (8, 16), 4
    whole, margin, cropped = (layered(family, two(size), "paper", size, crop=crop) for crop in (None, 99, 0))
    expected = sample(family, *whole, size)
    assert_same(sample(family, *margin, size), expected)
    assert_different(sample(family, *cropped, size), expected)
    rows = rows_of_each_step(family, *cropped, size)[0]
    assert sorted(x.shape[-1] for x, _ in rows) == [part] * 4 + [size[1]] * 2


# --- what some families add ---


@pytest.mark.parametrize("family", ["WAN21_T2V"], indirect=True)
def test_a_video_in_context_windows(family, mode, size):
    """ComfyUI then evaluates a video a few frames at a time, but does not cut an entry's mask to them."""
    windowed = in_windows(family.model)
    assert family.frames[0] > windowed.model_options["context_handler"].context_length == 2
    plain = sample(family, windowed, size=size)
    ours, prompts = layered(family, f"{PROMPT}: 0 0 1 1", mode, size, model=windowed)
    assert torch.equal(sample(family, ours, prompts, size), plain)
    ours, prompts = layered(family, two(size), mode, size, model=windowed)
    assert_different(sample(family, ours, prompts, size), plain)
    if mode == "paper":
        assert_only_the_dog_changes(change_of_one_layer(family, size, windowed), size)


@pytest.mark.parametrize("family", ["WAN21_T2V"], indirect=True)
def test_context_windows_that_would_cut_rows_are_refused(family, mode):
    windowed = in_windows(family.model)
    as_many_rows = (family.frames[0], 6)
    ours, prompts = layered(family, f"{PROMPT}: 0 0 1 1", mode, as_many_rows, model=windowed)
    with pytest.raises(ValueError, match="as many frames as rows"):
        sample(family, ours, prompts, as_many_rows)


@pytest.mark.parametrize("family", ["Flux"], indirect=True)
def test_the_global_prompts_attention_mask_stays_with_its_own_tokens(family, mode):
    """Redux appends a picture's tokens to a prompt, and a mask that weighs them; the layers' captions have neither."""
    redux = comfy.ldm.flux.redux.ReduxImageEncoder(redux_dim=8, txt_in_features=WIDTH)
    fill(redux, 6)
    seen = comfy.clip_vision.Output()
    seen.last_hidden_state = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(7))
    apply = comfy_nodes.StyleModelApply().apply_stylemodel
    (styled,) = apply(encode(family, PROMPT), comfy.sd.StyleModel(redux), seen, 0.5, "attn_bias")
    prompts = styled, encode(family, NEGATIVE)
    plain = sample(family)
    assert_different(sample(family, prompts=prompts), plain)
    ours, our_prompts = layered(family, two(SIZES[0]), mode, prompts=prompts)
    without, its_prompts = layered(family, two(SIZES[0]), mode)
    assert_different(sample(family, ours, our_prompts), sample(family, without, its_prompts))
    early = [options.get("attention_mask") for text, options in our_prompts[0] if text.shape != styled[0][0].shape]
    assert early == [None] * 3
