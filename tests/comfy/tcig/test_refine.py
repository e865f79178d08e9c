"""TCIG's second stage on real ComfyUI classes: an ordinary img2img run, from the level that the masks ask for."""

from dataclasses import replace

import comfy.sample
import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy.samplers import CFGGuider
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from stagecraft.core.comfy.sampling import Sampling
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.comfy.refine import DENOISE_MASK, hold_until_due, refine
from stagecraft.core.tcig.refinement import Denoising
from stagecraft.nodes.tcig.refine import MEASURED, StageTCIGRefine
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.families import FAMILIES, build_family
from torch import nn

pytestmark = pytest.mark.usefixtures("no_gradients")

SIDE = 64
LAYOUT = parse_layout("a dog: 0 0 0.5 1\nan apple: 0.5 0 1 1", width=SIDE, height=SIDE)
RUN = Sampling(seed=5, steps=6, cfg=2.0, sampler="euler", scheduler="normal")


class ByBrightness(nn.Module):
    """Dogs are red, apples are green."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(30.0), requires_grad=False)

    def forward(self, pixel_values):
        things = self.scale * (pixel_values[:, :2] - 0.5)
        return type("Output", (), {"logits": torch.cat([torch.zeros_like(things[:, :1]), things], 1)})


SEGMENTER = Segmenter(ByBrightness(), ("background", "dog", "apple"), (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3)


def draft(pictures=1):
    """The dog where it belongs, the apple nowhere."""
    image = torch.full((pictures, SIDE, SIDE, 3), 0.2)
    image[:, :, : SIDE // 2, 0] = 0.9
    return image


def refined(model, vae, prompts, denoising, image=None, run=RUN, **more):
    image = draft() if image is None else image
    return refine(model, vae, *prompts, image, [LAYOUT] * len(image), (SEGMENTER,), denoising, run, **more)


def test_it_is_img2img_from_the_level_that_the_masks_ask_for(model, vae, prompts):
    made = refined(model, vae, prompts, Denoising(0.25, 0.75))
    assert made.before == [{0: pytest.approx(1.0), 1: 0.0}]
    assert made.shares == [0.5] and torch.equal(made.changes, torch.ones(1, SIDE, SIDE))
    latent = vae.encode(draft())
    noise = comfy.sample.prepare_noise(latent, RUN.seed)
    samples = comfy.sample.sample(
        model, noise, RUN.steps, RUN.cfg, RUN.sampler, RUN.scheduler, *prompts, latent, start_step=3, seed=RUN.seed
    )
    assert torch.equal(made.images, vae.decode(samples).clamp(0, 1))
    assert set(made.after[0]) == {0, 1}
    assert not torch.equal(made.images, draft())


@pytest.mark.parametrize("hold", [0.0, 1.0])
def test_a_sampler_outside_paints_the_same(model, vae, prompts, hold):
    made = refined(model, vae, prompts, Denoising(0.25, 0.75, hold=hold))
    again = made.again
    assert len(again.sigmas) == RUN.steps * made.shares[0] + 1 and again.sigmas[-1] == 0
    guider = CFGGuider(hold_until_due(model))
    guider.set_conds(*prompts)
    guider.set_cfg(RUN.cfg)
    noise = comfy.sample.prepare_noise(again.latent, RUN.seed)
    sampler = comfy.samplers.sampler_object(RUN.sampler)
    samples = guider.sample(noise, again.latent, sampler, again.sigmas, denoise_mask=again.mask, seed=RUN.seed)
    torch.testing.assert_close(vae.decode(samples).clamp(0, 1), made.images, rtol=0, atol=1e-5)


def test_outside_each_draft_of_a_batch_has_its_own_share(model, vae, prompts):
    good = draft()
    good[:, :, SIDE // 2 :, 1] = 0.9
    made = refined(model, vae, prompts, Denoising(0.25, 0.75), image=torch.cat([draft(), good]))
    assert made.shares[0] > made.shares[1] > 0
    assert made.again.mask[:, 0].amax((1, 2)).tolist() == [1.0, pytest.approx(made.shares[1] / made.shares[0])]


def test_outside_a_draft_that_stays_has_no_levels_of_noise(model, vae, prompts):
    again = refined(model, vae, prompts, Denoising(fixed=0.0)).again
    assert len(again.sigmas) == 0 and not again.mask.any()


def test_denoise_0_gives_the_draft_back_bit_for_bit(model, vae, prompts):
    made = refined(model, vae, prompts, Denoising(fixed=0.0, hold=1.0))
    assert torch.equal(made.images, draft()) and made.before == made.after


def test_holding_is_comfyuis_differential_diffusion(model, vae, prompts):
    latent = vae.encode(draft())
    noise = comfy.sample.prepare_noise(latent, 1)
    mask = torch.rand(1, 1, *latent.shape[-2:], generator=torch.Generator().manual_seed(0))
    mask = mask.clamp(min=0.01)

    def sampled(held, mask=mask):
        return comfy.sample.sample(
            held, noise, 6, 2.0, "euler", "normal", *prompts, latent, start_step=2, noise_mask=mask, seed=1
        )

    ours = hold_until_due(model)
    found = sampled(ours)
    assert torch.equal(found, sampled(DifferentialDiffusion.execute(model).args[0]))
    mask[..., 0] = 0.0
    torch.testing.assert_close(sampled(ours)[..., 0], latent[..., 0].to(found), atol=1e-5, rtol=1e-4)
    assert DENOISE_MASK not in model.model_options
    # A mask of ones is no mask, and what another node put there decides first.
    torch.testing.assert_close(sampled(ours, torch.ones_like(mask)), sampled(model, None), atol=1e-5, rtol=1e-4)
    still = model.clone()
    still.set_model_denoise_mask_function(lambda sigma, denoise_mask, extra_options: torch.zeros_like(denoise_mask))
    torch.testing.assert_close(sampled(hold_until_due(still)), latent.to(found), atol=1e-5, rtol=1e-4)


def test_held_regions_stay_as_the_draft_has_them(model, vae, prompts):
    width = 6 * SIDE  # so wide that the decoder's view of one edge ends before the other region
    wide = parse_layout("a dog: 0 0 0.5 1\nan apple: 0.5 0 1 1", width=width, height=SIDE)
    image = torch.full((1, SIDE, width, 3), 0.2)
    image[:, :, : width // 2, 0] = 0.9

    def made(hold):
        denoising = Denoising(0.0, 0.9, hold=hold, fixed=0.9)
        judge = replace(SEGMENTER, size=(SIDE, width))
        return refine(model, vae, *prompts, image, [wide], (judge,), denoising, RUN)

    alike, held = made(0.0), made(1.0)
    assert alike.shares == held.shares
    torch.testing.assert_close(held.changes[0, 10, [4, width - 4]], torch.tensor([0.0, 1.0]))
    again = vae.decode(vae.encode(image)).clamp(0, 1)
    edge, other = (..., slice(0, 8), slice(None)), (..., slice(-8, None), slice(None))
    assert (held.images - again)[edge].abs().max() < 1e-4 < (alike.images - again)[edge].abs().max()
    assert (held.images - again)[other].abs().max() > 1e-2


@pytest.mark.parametrize("side", [SIDE, SIDE + 8])  # where sides are odd in cells, PyTorch draws noise in another way
def test_pictures_of_a_batch_have_noise_and_levels_of_their_own(model, vae, prompts, side):
    images = F.interpolate(draft(2).movedim(-1, 1), (side, side)).movedim(1, -1)
    images[1, :, side // 2 :, 1] = 0.9  # the apple is there too
    made = refined(model, vae, prompts, Denoising(0.34, 1.0), images)
    assert made.shares == [pytest.approx(4 / 6), pytest.approx(2 / 6)]
    alone = refined(model, vae, prompts, Denoising(0.34, 1.0), images[:1])
    assert torch.equal(alone.images[0], made.images[0])
    again = refined(model, vae, prompts, Denoising(0.34, 1.0), images)
    assert torch.equal(again.images, made.images) and again.after == made.after


@pytest.mark.parametrize("name", FAMILIES)
def test_on_every_family(name):
    family = build_family(name)
    text = encode(family.clip, "")
    made = [
        refined(family.model, family.vae, (text, text), Denoising(0.25, 0.75, hold=hold), draft(2))
        for hold in (0.0, 1.0)
    ]
    assert all(each.images.shape == draft(2).shape and torch.isfinite(each.images).all() for each in made)
    first, second = made[0].images
    assert not torch.equal(first, second)  # noise of its own
    assert not torch.equal(made[0].images, made[1].images)


def test_sizes(model, vae, prompts):
    made = refined(model, vae, prompts, Denoising(fixed=0.5, hold=0.5), upscale=1.5)
    assert made.images.shape == (1, 96, 96, 3) and made.changes.shape == (1, 96, 96)
    odd = parse_layout("a dog: 0 0 0.5 1", width=61, height=50)
    denoising = Denoising(fixed=0.5)
    made = refine(model, vae, *prompts, torch.rand(1, 50, 61, 3), [odd], (SEGMENTER,), denoising, RUN)
    assert made.images.shape == (1, 48, 64, 3)


def test_unknown_phrases_and_strengths_the_wrong_way_round(model, vae, prompts):
    layout = parse_layout("a zebra: 0 0 0.5 1", width=SIDE, height=SIDE)
    with pytest.raises(SegmenterError, match='"a zebra".*dog'):
        refine(model, vae, *prompts, draft(), [layout], (SEGMENTER,), Denoising(), RUN)
    with pytest.raises(ValueError, match="The draft has pixels that are not finite"):
        refined(model, vae, prompts, Denoising(), draft() * float("nan"))
    with pytest.raises(LayoutError, match="64 x 32 pixels, which is not the shape"):
        refined(model, vae, prompts, Denoising(), draft()[:, :32])
    said = StageTCIGRefine.validate_inputs(MEASURED, 0.8, 0.5)
    assert "above denoise_if_not" in said
    assert StageTCIGRefine.validate_inputs("by hand", 0.8, 0.5) is True
    assert StageTCIGRefine.validate_inputs(MEASURED, None, 0.5) is True
