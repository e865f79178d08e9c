"""Regions of tokens on the small model, and attention to them written out by hand."""

import comfy.sample
import comfy.samplers
import torch
from einops import rearrange
from stagecraft.core.soft_guidance.comfy.apply import apply_soft_guidance
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.core.soft_guidance.soft_guidance import PUBLISHED, cell_mask
from stagecraft.tests.comfy.conftest import CONTEXT

STEPS, CFG = 3, 2.0
LONG = "a dog and a cat on a green meadow " * 12  # two chunks of 77


def sample(model, prompts, height=16, width=16, *, batch=1, sampler="euler", cfg=CFG, steps=STEPS):
    latent = torch.zeros(batch, 4, height, width)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=7, disable_pbar=True)


def tokens(count=4, seed=0, batch=1, scale=2.0):
    return scale * torch.randn(batch, count, CONTEXT, generator=torch.Generator().manual_seed(seed))


def left(height=16, width=16, share=0.5, pixels=8):
    mask = torch.zeros(1, height * pixels, width * pixels)
    mask[..., : int(share * width * pixels)] = 1
    return mask


def two_sides(mask=None, **more):
    mask = left() if mask is None else mask
    return [RegionTokens(tokens(seed=1), mask, **more), RegionTokens(tokens(seed=2), mask, outside=True, **more)]


def soft(model, prompts, regions, rule=PUBLISHED):
    model, *prompts = apply_soft_guidance(model, *prompts, regions, rule)
    return model, prompts


def appended(conditioning, *more):
    """The prompt with tokens behind its text and nothing else."""
    rows = max(len(each) for each in more)
    return [
        [torch.cat([text.expand(rows, -1, -1), *(m.expand(rows, -1, -1) for m in more)], 1), o]
        for text, o in conditioning
    ]


def by_hand(model, regions, rule=PUBLISHED):
    """A model whose cross-attention is written out, with the tokens of the regions in the last columns of each row."""
    model = model.clone()

    def attend(q, k, v, options):
        heads, grid = options["n_heads"], options["activations_shape"][-2:]
        count = sum(region.tokens.shape[1] for region in regions)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).exp()
        start = k.shape[2] - count
        for region in regions:
            stop = start + region.tokens.shape[1]
            seen = cell_mask(region.mask, tuple(grid), rule)
            seen = (~seen if region.outside else seen).float() * region.weight
            seen = seen.repeat(len(q) // len(seen), 1)  # the pictures of each entry, entry after entry
            weights[..., start:stop] *= seen[:, None, :, None]
            start = stop
        return rearrange(weights / weights.sum(-1, keepdim=True) @ v, "b h n d -> b n (h d)")

    for part, numbers in (("input", range(12)), ("middle", range(3)), ("output", range(12))):
        for number in numbers:
            model.set_model_attn2_replace(attend, part, number)

    def one_by_one(args):
        rest = args["input"], args["sigma"], args["model_options"]
        return [comfy.samplers.calc_cond_batch(args["model"], [each], *rest)[0] for each in args["conds"]]

    # In one batch ComfyUI may repeat contexts, and the columns would not be the last ones.
    model.set_model_sampler_calc_cond_batch_function(one_by_one)
    return model


def assert_same_picture(found, expected, plain=None):
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)
    if plain is not None:
        assert (expected - plain).abs().max() > 1e-2 * size, "it must change something for this to say anything"
