"""Attention in diffusers' U-Nets: maps and gradients are ComfyUI's on the same weights; nothing is left behind."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from stagecraft.core.attention.diffusers import record_attention
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import MIDDLE_AND_FIRST_UP, PLACES, QUARTER
from stagecraft.core.attention_guidance.energies import in_box_share
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance, of_diffusers
from stagecraft.sticker_world.checkpoint.shipped_weights import load_diffusion
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.vocabulary import vocabulary
from stagecraft.tests.comfy.attention.networks import (
    COLUMNS,
    agree,
    embedded,
    noisy,
    sdxl_like,
    some_text,
    targets_of_boxes,
)

PROMPT = "a dog and a red apple on a green meadow"


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


def test_gradients_are_those_of_comfyui(pair):
    """In double precision, where only the maps themselves are rounded to single."""
    pair = pair.double()
    targets = [replace(target, columns=(i,)) for i, target in enumerate(targets_of_boxes())]
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
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
    )
    with pytest.raises(ValueError, match="no transformer blocks"):
        with record_attention(plain, AttentionRecorder(QUARTER, (8, 8), [COLUMNS])):
            pass
