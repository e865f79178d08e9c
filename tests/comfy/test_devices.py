"""What touches a device: on the CPU, or by `stage.py test --device` on a GPU, in every precision that it has.

The reference is the CPU in float32.
"""

import comfy.model_management
import pytest
import torch
from stagecraft.core.clip.clip_guide import load_clip
from stagecraft.core.comfy.device import on_device
from stagecraft.core.drawing import resizing
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.cut_outs import pool
from stagecraft.core.tcig.vqgan_files import load_vqgan
from stagecraft.sticker_world import shipped
from stagecraft.tests.comfy.attention_guidance import guided as attention
from stagecraft.tests.comfy.conftest import DEVICE
from stagecraft.tests.comfy.layered_rendering import small_runs as layers
from stagecraft.tests.comfy.soft_guidance import small_regions as regions

NAMES = ("a dog", "a cat")

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("no_gradients")]

# Largest difference from the reference, in standard deviations of its picture.
PRECISIONS = {torch.float32: 1e-2, torch.float16: 0.05, torch.bfloat16: 0.3}


def has(dtype):
    """Whether the device computes in it; older Macs have no bfloat16."""
    try:
        x = torch.ones(2, 2, dtype=dtype, device=DEVICE)
        return bool((x @ x == 2).all())
    except (RuntimeError, TypeError):
        return False


@pytest.fixture(params=PRECISIONS, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    if not has(request.param):
        pytest.skip(f"{DEVICE} has no {request.param}")
    return request.param


@pytest.fixture
def model_there(make_model, dtype):
    return make_model(dtype=dtype, device=DEVICE)


def assert_near(found, expected, plain, dtype):
    """Near the reference, and nearer to it than to what comes without the method."""
    found, size = found.float().cpu(), expected.std()
    assert found.isfinite().all()
    assert (found - expected).abs().max() / size < PRECISIONS[dtype]
    assert (found - expected).square().mean() < (found - plain).square().mean()


def test_the_device_is_the_one_that_was_asked_for():
    assert comfy.model_management.get_torch_device().type == DEVICE


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_layered_rendering(model, model_there, clip, vae, prompts, dtype, mode):
    expected, found = (
        layers.sample(*layers.layered(each, clip, vae, layers.TWO, prompts, mode=mode)) for each in (model, model_there)
    )
    assert_near(found, expected, layers.sample(model, prompts), dtype)


def test_attention_guidance(model, model_there, clip, prompts, dtype):
    expected, found = (attention.sample(attention.guided(each, clip), prompts) for each in (model, model_there))
    assert_near(found, expected, attention.sample(model, prompts), dtype)


def test_soft_guidance(model, model_there, prompts, dtype):
    expected, found = (
        regions.sample(*regions.soft(each, prompts, regions.two_sides())) for each in (model, model_there)
    )
    assert_near(found, expected, regions.sample(model, prompts), dtype)


def test_networks_of_drafts_and_their_gradients():
    """Float32 on every device; on a Mac's GPU with our own resizing and pooling."""
    vqgan, guide = load_vqgan(shipped.VQGAN_FOLDER), load_clip(shipped.CLIP_FOLDER)
    segmenter = Segmenter.load(shipped.SEGMENTER_FOLDER)
    latent = torch.randn(1, vqgan.codes.shape[1], 8, 8, generator=torch.Generator().manual_seed(0))

    def seen(device):
        with torch.inference_mode(False), torch.enable_grad():
            picture = vqgan.decode(latent.to(device))
            given = [picture, guide.embed_pictures(pool(picture, guide.size)), segmenter.soft_masks(picture, NAMES)]
            x = picture.detach().requires_grad_()
            loss = guide.embed_pictures(resizing.resized(x, (guide.size,) * 2)).sum()
            (loss + segmenter.soft_masks(x, NAMES).square().sum()).backward()
            return [each.detach().cpu() for each in (*given, x.grad / x.grad.std())]

    expected = seen("cpu")
    with on_device([vqgan.network, guide.network, segmenter.network]) as device:
        assert device.type == DEVICE
        found = seen(device)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("job", ["resized", "mean_pooled", "largest_pooled"])
def test_pictures_on_other_grids(job, dtype):
    pictures = torch.rand(1, 3, 256, 200, generator=torch.Generator().manual_seed(0))
    function = getattr(resizing, job)
    found = function(pictures.to(DEVICE, dtype), (224, 97)).float().cpu()
    torch.testing.assert_close(found, function(pictures, (224, 97)), atol=PRECISIONS[dtype] / 10, rtol=0)
