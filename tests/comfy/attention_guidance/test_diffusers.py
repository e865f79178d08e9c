"""Attention in diffusers' U-Nets: maps and gradients are ComfyUI's on the same weights; and what users build on it."""

import copy
from contextlib import suppress
from dataclasses import replace

import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from stagecraft.core.attention.comfy.recording import recording
from stagecraft.core.attention.diffusers import record_attention
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import MIDDLE_AND_FIRST_UP, PLACES, QUARTER
from stagecraft.core.attention_guidance.diffusers import guide_at_step_end, guide_latents, token_columns
from stagecraft.core.attention_guidance.energies import in_box_share
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance, SlowThing, of_diffusers
from stagecraft.sticker_world.checkpoint.shipped_weights import load_diffusion
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.vocabulary import vocabulary
from stagecraft.tests.comfy.families import fill
from transformers import CLIPTokenizer

PROMPT = "a dog and a red apple on a green meadow"
COLUMNS = torch.tensor([2, 5, 6])
BOXES = {(0.0, 0.0, 0.5, 0.5): (2, 3), (0.5, 0.25, 1.0, 1.0): (5,)}  # of whole cells, and their phrases' tokens
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Pair:
    """One network in both hosts."""

    def __init__(self, comfyui, diffusers, width, y=None, added=None):
        self.comfyui, self.diffusers = comfyui.requires_grad_(False), diffusers.requires_grad_(False)
        self.width = width
        self.more = {"comfyui": {} if y is None else {"y": y}, "diffusers": added or {}}

    def double(self):
        """A copy in double precision."""
        both = copy.copy(self)
        both.comfyui, both.diffusers = (copy.deepcopy(network).double() for network in (self.comfyui, self.diffusers))
        both.more = _changed(self.more, torch.Tensor.double)
        return both

    def run(self, host, recorder, x, text, leave_early=False):
        t, more = torch.tensor([500.0]), _changed(self.more[host], lambda inputs: inputs.expand(len(x), -1))
        if host == "diffusers":
            with record_attention(self.diffusers, recorder, leave_early=leave_early):
                self.diffusers(x, t, text, **more)
        else:
            options = recording({}, {"entry": recorder}, leave_early=leave_early)["transformer_options"]
            self.comfyui(x, t, context=text, transformer_options=options | {"uuids": ["entry"]}, **more)
        return recorder.maps


def _changed(inputs, change):
    """The same dictionaries with other tensors."""
    return change(inputs) if torch.is_tensor(inputs) else {k: _changed(each, change) for k, each in inputs.items()}


def embedded():
    register_model_class()
    loaded = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False, output_clip=False)
    network = loaded[0].model.diffusion_model.float()
    return Pair(network, load_diffusion(CHECKPOINT_FILE).unet, 128)


def sdxl_like():
    """Two transformer blocks at a place, linear projections, and a vector beside the text."""
    sizes = {
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [0, 2],
        "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2],
    }
    comfyui = UNetModel(
        **copy.deepcopy(sizes), image_size=32, in_channels=4, out_channels=4, model_channels=32, num_head_channels=16,
        num_heads=-1, use_spatial_transformer=True, use_linear_in_transformer=True, context_dim=24, legacy=False,
        num_classes="sequential", adm_in_channels=16 + 6 * 8, operations=comfy.ops.disable_weight_init,
        dtype=torch.float32,
    )  # fmt: skip
    fill(comfyui, 5)
    diffusers = UNet2DConditionModel(
        layers_per_block=1, block_out_channels=(32, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4), cross_attention_dim=24, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip
    weights = comfyui.state_dict()
    names = comfy.utils.unet_to_diffusers(copy.deepcopy(sizes))
    diffusers.load_state_dict({key: weights[names[key]] for key in diffusers.state_dict()})
    pooled, sizes_and_offsets = torch.randn(1, 16), torch.tensor([[128.0, 128, 0, 0, 128, 128]])
    added = {"text_embeds": pooled, "time_ids": sizes_and_offsets}
    times = diffusers.add_time_proj(sizes_and_offsets.flatten()).reshape(1, -1)
    return Pair(comfyui, diffusers, 24, torch.cat([pooled, times], 1), {"added_cond_kwargs": added})


@pytest.fixture(scope="module", params=[embedded, sdxl_like])
def pair(request):
    torch.manual_seed(0)
    return request.param()


@pytest.fixture(scope="module")
def trained():
    return load_diffusion(CHECKPOINT_FILE)


@pytest.fixture(scope="module")
def texts(trained):
    with torch.no_grad():
        return [trained.text(input_ids=vocabulary().encode([text])).last_hidden_state for text in (PROMPT, "")]


@pytest.fixture(scope="module")
def smooth():
    """A U-Net with random weights. What attention does in it changes slowly, so two ways to one place stay together."""
    unet = UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(32, 64), attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
    )  # fmt: skip
    fill(unet, 5)
    return unet


@pytest.fixture
def targets():
    found = []
    for (x0, y0, x1, y1), tokens in BOXES.items():
        mask = torch.zeros(16, 16)
        mask[int(16 * y0) : int(16 * y1), int(16 * x0) : int(16 * x1)] = 1
        found.append(Target(tokens, mask))
    return found


def noisy(height, width, batch=1):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(1))


def some_text(width, batch=1):
    return torch.randn(batch, 77, width, generator=torch.Generator().manual_seed(2))


def agree(found, expected, share=1e-5):
    """Equal up to a share of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=share * expected.abs().max().item())


@pytest.mark.parametrize("size", [(32, 32), (26, 36)])
@pytest.mark.parametrize("which", PLACES)
def test_maps_are_those_of_comfyui(pair, which, size):
    regions = torch.zeros(2, *size)
    regions[0, : size[0] // 2], regions[1, :, size[1] // 2 :] = 1, 1
    found = {}
    for host in ("comfyui", "diffusers"):
        recorder = AttentionRecorder(which, size, [COLUMNS], regions=regions)
        with torch.no_grad():
            found[host] = pair.run(host, recorder, noisy(*size), some_text(pair.width))
    assert list(found["comfyui"]) == list(found["diffusers"])
    assert found["comfyui"]
    for site, expected in found["comfyui"].items():
        torch.testing.assert_close(found["diffusers"][site], expected, rtol=0, atol=1e-5)


def test_gradients_are_those_of_comfyui(pair, targets):
    """In double precision, where only the maps themselves are rounded to single."""
    pair = pair.double()
    targets = [replace(target, columns=(i,)) for i, target in enumerate(targets)]
    found = {}
    for host in ("comfyui", "diffusers"):
        x = noisy(32, 32, 2).double().requires_grad_()
        recorder = AttentionRecorder(MIDDLE_AND_FIRST_UP, (32, 32), [COLUMNS])
        maps = pair.run(host, recorder, x, some_text(pair.width, 2).double(), leave_early=True)
        (found[host],) = torch.autograd.grad(in_box_share(maps, targets).sum(), x)
    assert found["comfyui"].abs().max() > 0
    agree(found["diffusers"], found["comfyui"])


def test_maps_are_the_softmax(trained, texts):
    """The reference keeps queries and keys by hooks and writes the softmax out."""
    slow = SlowGuidance(trained.unet, [], *texts, torch.ones(2), torch.tensor([500]), call=of_diffusers)
    recorder = AttentionRecorder(MIDDLE_AND_FIRST_UP, (32, 32), [COLUMNS])
    with torch.no_grad():
        _, expected = slow.evaluate(noisy(32, 32), torch.tensor(0.0), torch.tensor(500), texts[0])
        with record_attention(trained.unet, recorder):
            trained.unet(noisy(32, 32), 500, texts[0])
    assert len(expected) == len(recorder.maps) == 3  # one in the middle, two in the first up block
    for ours, whole in zip(recorder.maps.values(), expected, strict=True):
        torch.testing.assert_close(ours, whole[..., COLUMNS], rtol=0, atol=1e-5)


class OnesProcessor(AttnProcessor):
    """Somebody's own processor: it counts, and doubles."""

    calls = 0

    def __call__(self, *args, **kwargs):
        OnesProcessor.calls += 1
        return 2 * super().__call__(*args, **kwargs)


def hooks(unet):
    return sum(len(module._forward_pre_hooks) for module in unet.modules())


@torch.no_grad()
def test_recording_changes_nothing_and_leaves_nothing(trained, texts):
    unet = copy.deepcopy(trained.unet)
    unet.set_attn_processor(OnesProcessor())
    unet.enable_gradient_checkpointing()
    before, plain = unet.attn_processors, unet(noisy(32, 32), 500, texts[0]).sample
    OnesProcessor.calls = 0
    recorders = [AttentionRecorder(which, (32, 32), [COLUMNS]) for which in (MIDDLE_AND_FIRST_UP, QUARTER)]
    with record_attention(unet, recorders[0]), record_attention(unet, recorders[1]):
        seen = unet(noisy(32, 32), 500, texts[0]).sample
        assert unet.attn_processors == before
    assert torch.equal(seen, plain)
    assert OnesProcessor.calls == len(before)
    assert [len(recorder.maps) for recorder in recorders] == [3, 4]
    with (
        pytest.raises(RuntimeError, match="shapes"),
        record_attention(unet, AttentionRecorder(QUARTER, (4, 4), [COLUMNS])),
    ):
        unet(noisy(32, 32), 500, texts[0][..., :5])
    assert hooks(unet) == 0
    assert unet.attn_processors == before
    assert unet.is_gradient_checkpointing


@torch.no_grad()
def test_rows_of_a_pipelines_batch(trained, texts):
    found = []
    for rows, batch in ((slice(1, 2), [texts[1], texts[0]]), (slice(None), [texts[0]])):
        recorder = AttentionRecorder(QUARTER, (32, 32), [COLUMNS])
        with record_attention(trained.unet, recorder, rows=rows):
            trained.unet(noisy(32, 32).expand(len(batch), -1, -1, -1), 500, torch.cat(batch))
        found.append(recorder.maps)
    for site, alone in found[1].items():
        torch.testing.assert_close(found[0][site], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_leaves_behind_the_last_map(trained, texts):
    unet, reached = trained.unet, []
    parts = {"last attention": unet.up_blocks[0].attentions[1], "next block": unet.up_blocks[1], "end": unet.conv_out}
    feed_forward = unet.up_blocks[0].attentions[1].transformer_blocks[0].ff
    handles = [feed_forward.register_forward_hook(lambda *_: reached.append("feed forward"))]
    for name, part in parts.items():
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: reached.append(name)))
    known, maps = frozenset(), []
    for expected in (["last attention", "feed forward", "next block"], ["last attention"]):
        recorder = AttentionRecorder(MIDDLE_AND_FIRST_UP, (32, 32), [COLUMNS], known=known)
        with record_attention(unet, recorder, leave_early=True):
            unet(noisy(32, 32), 500, texts[0])
        assert reached == expected
        known, maps = frozenset(recorder.maps), [*maps, recorder.maps]
        reached.clear()
    for handle in handles:
        handle.remove()
    assert maps[0].keys() == maps[1].keys()
    assert all(torch.equal(maps[0][site], maps[1][site]) for site in known)


def test_a_network_without_prompt_is_refused():
    plain = UNet2DConditionModel(
        block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        mid_block_type=None, layers_per_block=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no transformer blocks"):
        with record_attention(plain, AttentionRecorder(QUARTER, (8, 8), [COLUMNS])):
            pass


def euler(steps, **more):
    scheduler = EulerDiscreteScheduler(**SCHEDULE, **more)
    scheduler.set_timesteps(steps)
    return scheduler


def texts_of(unet, batch=1):
    return [
        torch.randn(batch, 8, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(i))
        for i in (2, 3)
    ]


def chen(scale, threshold=0.2):
    """Chen et al.'s energy; the default scale moves random weights' attention by little."""
    return replace(ENERGIES["chen"], threshold=threshold, schedule=lambda progress, following: (scale, 5))


@torch.no_grad()
@pytest.mark.parametrize(("threshold", "steps"), [(0.2, [5, 5, 5, 0]), (0.42, [4, 0, 0, 0])])
def test_a_loop_of_ones_own_equals_the_slow_one(smooth, targets, threshold, steps):
    """Guided in the first three of four steps, or until the attention is in place."""
    scheduler, (prompt, empty), cfg = euler(4), texts_of(smooth), 3.0
    start = noisy(16, 16) * scheduler.init_noise_sigma
    slow = SlowGuidance(
        smooth, [SlowThing(list(tokens), [box]) for box, tokens in BOXES.items()], prompt, empty, scheduler.sigmas,
        scheduler.timesteps, call=of_diffusers, cfg=cfg, scale=300.0, guided_steps=3, threshold=threshold,
    )  # fmt: skip
    expected = slow(start)
    assert [len(losses) for losses in slow.losses] == steps
    latents, energy = start, torch.inf
    for i, t in enumerate(scheduler.timesteps):
        if i < 3 and energy > threshold:
            latents, energy = guide_latents(
                smooth, latents, t, prompt, scheduler, targets, energy=chen(300.0, threshold), progress=i / 4
            )
        seen = scheduler.scale_model_input(latents, t)
        asked, free = (smooth(seen, t, text).sample for text in (prompt, empty))
        latents = scheduler.step(free + cfg * (asked - free), t, latents).prev_sample
    agree(latents, expected)


@torch.no_grad()
def test_pictures_of_a_batch_stop_by_themselves(smooth, targets):
    scheduler, prompts = euler(4), texts_of(smooth, 2)[0]
    start, t = noisy(16, 16, 2) * scheduler.init_noise_sigma, scheduler.timesteps[0]

    def guided(rows, threshold):
        given = start[rows], t, prompts[rows], scheduler, targets
        return guide_latents(smooth, *given, energy=chen(300.0, threshold))

    threshold = float(guided(slice(None), 0.0)[1].mean())  # one of the two gets below it
    alone = [guided(slice(i, i + 1), threshold) for i in (0, 1)]
    agree(guided(slice(None), threshold)[0], torch.cat([latents for latents, _ in alone]))
    below = [bool(energy <= threshold) for _, energy in alone]
    assert sorted(below) == [False, True]


@torch.no_grad()
def test_schedulers_of_either_scale_agree(smooth, targets):
    scaled = euler(5, timestep_spacing="leading")
    plain = DDIMScheduler(**SCHEDULE, timestep_spacing="leading")
    plain.set_timesteps(5)
    t, sigma, text = scaled.timesteps[1], scaled.sigmas[1], texts_of(smooth)[0]
    assert t == plain.timesteps[1]
    latents = noisy(16, 16) * (sigma**2 + 1) ** 0.5
    scaled._step_index = 1  # as after one step
    found, energy = guide_latents(smooth, latents, t, text, scaled, targets, energy=chen(300.0))
    shrunk = latents / (sigma**2 + 1) ** 0.5
    other, same = guide_latents(smooth, shrunk, t, text, plain, targets, energy=chen(300.0))
    torch.testing.assert_close(same, energy)
    agree(other * (sigma**2 + 1) ** 0.5, found)
    assert (found - latents).abs().max() > 0.1


@pytest.mark.parametrize("energy", list(ENERGIES))
def test_energies_fall_and_weights_stay(smooth, targets, energy):
    unet = copy.deepcopy(smooth).requires_grad_(True)
    before = {name: (id(weight), weight.data_ptr()) for name, weight in unet.named_parameters()}
    scheduler, energies = euler(20), []
    with torch.inference_mode():  # as ComfyUI's executor, or a careful user, has it
        latents = noisy(16, 16) * scheduler.init_noise_sigma
        text, targets = texts_of(unet)[0], [replace(each, mask=each.mask.clone()) for each in targets]
        for _ in range(3):
            latents, found = guide_latents(
                unet, latents, scheduler.timesteps[0], text, scheduler, targets, energy=energy, words=range(1, 7),
                iterations=1,
            )  # fmt: skip
            energies.append(found.item())
    assert energies[0] > energies[1] > energies[2]
    assert {name: (id(weight), weight.data_ptr()) for name, weight in unet.named_parameters()} == before
    assert all(weight.requires_grad and weight.grad is None for weight in unet.parameters())


def test_strength_zero_is_the_identity(smooth, targets):
    scheduler, latents = euler(5), noisy(16, 16)
    t, text = scheduler.timesteps[0], texts_of(smooth)[0]
    assert torch.equal(guide_latents(smooth, latents, t, text, scheduler, targets, strength=0)[0], latents)


@pytest.mark.parametrize(
    ("count", "guided"), [(20, [*range(4), *range(4, 14, 2)]), (50, [*range(10), *range(10, 35, 5)])]
)
def test_refocusing_rests_between_every_fifth_of_50_steps(smooth, targets, count, guided):
    scheduler, energy = euler(count), replace(ENERGIES["refocusing"], measure=lambda maps, *_: asked.append(i) or 1 / 0)
    given, asked = (texts_of(smooth)[0], scheduler, targets), []
    for i, t in enumerate(scheduler.timesteps[: int(0.7 * count)]):
        with suppress(ZeroDivisionError):  # the schedule is all that is looked at
            guide_latents(smooth, noisy(8, 8), t, *given, energy=energy, progress=i / count, words=range(1, 7))
    assert asked == guided


def test_half_precision_keeps_the_gradient(smooth, targets):
    scheduler, text = euler(5), texts_of(smooth)[0]
    latents, steps = noisy(16, 16) * scheduler.init_noise_sigma, []
    for unet in (smooth, copy.deepcopy(smooth).half()):
        given = latents, scheduler.timesteps[0], text.to(unet.dtype), scheduler, targets
        steps.append((guide_latents(unet, *given, iterations=1)[0] - latents).flatten())
    assert torch.cosine_similarity(*steps, dim=0) > 0.99


def test_what_cannot_work_says_so(smooth, targets):
    flow, scheduler, text = FlowMatchEulerDiscreteScheduler(), euler(5), texts_of(smooth)[0]
    t = scheduler.timesteps[0]
    with pytest.raises(ValueError, match="not made for models that predict noise"):
        guide_latents(smooth, noisy(16, 16), 500, text, flow, targets)
    with pytest.raises(ValueError, match="pass their positions as `words`"):
        guide_latents(smooth, noisy(16, 16), t, text, scheduler, targets, energy="boxdiff")
    with pytest.raises(ValueError, match="not finite"):
        guide_latents(smooth, noisy(16, 16) * torch.nan, t, text, scheduler, targets)


def test_token_columns():
    folder = comfy.sd1_clip.__file__.replace("sd1_clip.py", "sd1_tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert token_columns(tokenizer, "a cat and a dog", "dog") == (5,)
    assert token_columns(tokenizer, "a cat, a dog and a cat", "a cat") == (2, 8)
    split = token_columns(tokenizer, "an axolotlkeeper smiles", "axolotlkeeper")
    assert len(split) > 1
    assert split == tuple(range(2, 2 + len(split)))
    with pytest.raises(ValueError, match="word for word"):
        token_columns(tokenizer, "a cat", "a dog")


def test_in_a_pipeline(trained, smooth, targets):
    """A callback guides all steps but the first, as a loop of one's own does."""
    vae = AutoencoderTiny(encoder_block_out_channels=(64,) * 4, decoder_block_out_channels=(64,) * 4)
    pipe = StableDiffusionPipeline(
        vae, trained.text, None, smooth, EulerDiscreteScheduler(**SCHEDULE), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    (prompt, empty), start, steps = texts_of(smooth), noisy(16, 16), 16
    found = pipe(
        prompt_embeds=prompt, negative_prompt_embeds=empty, num_inference_steps=steps, height=128, width=128,
        latents=start, output_type="latent", guidance_scale=3.0,
        callback_on_step_end=guide_at_step_end(targets, energy=chen(300.0), iterations=2),
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    ).images  # fmt: skip
    scheduler, guided = euler(steps), []
    latents = start * scheduler.init_noise_sigma
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            if 0 < i / steps < ENERGIES["chen"].end:
                guided.append(i)
                latents, _ = guide_latents(
                    smooth, latents, t, prompt, scheduler, targets, energy=chen(300.0), iterations=2
                )
            seen = scheduler.scale_model_input(latents, t)
            asked, free = (smooth(seen, t, text).sample for text in (prompt, empty))
            latents = scheduler.step(free + 3.0 * (asked - free), t, latents).prev_sample
    assert guided == [1, 2, 3]
    agree(found, latents, 1e-4)
