"""Small models with attention guidance, a run of them, and the slow loop that guides the same run."""

import comfy.sample
import comfy.samplers
import torch
from stagecraft.core.attention_guidance.comfy.guide import GUIDANCE_LOG, guide_attention
from stagecraft.core.attention_guidance.settings import Guidance
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.layout.reading import parse_layout
from stagecraft.evaluation.baselines.slow_guidance import SlowThing, slow_chen_loop
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode

STEPS, CFG, END = 5, 2.0, 0.4  # two of five steps are guided
TWO = "a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1"
BOXES = {"a dog": (0.0, 0.0, 0.5, 0.5), "a cat": (0.5, 0.25, 1.0, 1.0)}


def guide(model, clip, layout, log=GUIDANCE_LOG, **settings):
    return guide_attention(model, clip, layout, Guidance(**settings), log)


def guided(model, clip, text=TWO, *, width=128, height=128, prompt=PROMPT, end_at=END, **more):
    layout = parse_layout(text, width=width, height=height, prompt=prompt)
    return guide(model, clip, layout, end_at=end_at, **more)


def sample(model, prompts, height=16, width=16, *, batch=1, sampler="euler", steps=STEPS, cfg=CFG, noise=None, **more):
    latent = torch.zeros(batch, 4, height, width) if noise is None else torch.zeros_like(noise)
    noise = comfy.sample.prepare_noise(latent, 7) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=7, disable_pbar=True, **more
    )


def slow(model, clip, noise, *, prompt=PROMPT, boxes=BOXES, **settings):
    """The slow loop; boxes has a box for each phrase, or several in a list."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    kind = model.model.model_type.name
    found = slow_chen_loop(
        noise * (sigmas[0] if kind == "FLOW" else torch.sqrt(sigmas[0] ** 2 + 1)),
        network=model.model.diffusion_model,
        things=[
            SlowThing(phrase_positions(clip, prompt, phrase), box if isinstance(box, list) else [box])
            for phrase, box in boxes.items()
        ],
        positive=encode(clip, prompt)[0][0],
        negative=encode(clip, NEGATIVE)[0][0],
        sigmas=sigmas,
        timesteps=torch.stack([sampling.timestep(sigma) for sigma in sigmas[:-1]]),
        cfg=CFG,
        guided_steps=2,
        kind=kind,
        **settings,
    )
    return model.model.process_latent_out(found)


def assert_same_picture(found, expected):
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)
