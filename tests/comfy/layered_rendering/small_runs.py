"""Runs of the small model with two layers, by ComfyUI's samplers and by the slow loop, and how they are compared."""

import comfy.sample
import comfy.samplers
import torch
from stagecraft.core.layered_rendering.comfy.deltas import colour_latent
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.layered_rendering.slow_layers import SlowLayer, SlowRun

STEPS, CFG, T0, SEED = 5, 2.0, 0.5, 7
FULL = f"{PROMPT}: 0 0 1 1"
TWO = "a dog: 0.125 0.25 0.625 0.875 | colour=red\na cat: 0.5 0 1 0.5 | a small cat | colour=#2040ff | strength=0.5"
APART = {"mode": "trajectories"}
DYNAMIC = VisionGuidance(source="dynamic", top_k=5)
AUTO = VisionGuidance(source="auto", top_k=5)


def sample(model, prompts, height=8, width=8, *, batch=1, steps=STEPS, sampler="euler", cfg=CFG, noise=None, **more):
    latent = torch.zeros(batch, 4, height, width)
    noise = comfy.sample.prepare_noise(latent, SEED) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=SEED, disable_pbar=True, **more
    )


def layered(model, clip, vae, text, prompts, *, width=64, height=64, background="on a meadow", **rendering):
    layout = parse_layout(text, width=width, height=height, background=background)
    rendering = Rendering(**{"t0": T0, "strength": 1.0} | rendering)
    prepared = render_in_layers(model, clip, vae, layout, *prompts, rendering)
    return prepared[0], prepared[1:]


def slow_run(model, clip, layers, canvas, kind="EPS", t0=T0, steps=STEPS, **more):
    """Build the slow loop with ComfyUI's schedule; `layers` are (text, box in pixels, delta)."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps)
    timesteps = torch.stack([sampling.timestep(sigma) for sigma in sigmas[:-1]])
    return SlowRun(
        network=model.model.diffusion_model,
        kind=kind,
        layers=[SlowLayer(encode(clip, text)[0][0], box, delta) for text, box, delta in layers],
        positive=encode(clip, PROMPT)[0][0],
        negative=encode(clip, NEGATIVE)[0][0],
        sigmas=sigmas,
        timesteps=timesteps,
        last_layered_sigma=sampling.percent_to_sigma(t0) if t0 < 1 else 0.0,
        cfg=CFG,
        canvas=canvas,
        **more,
    )


def two_layers(model, vae, canvas=(64, 64), strength=1.0):
    """`TWO` on a canvas of whole pixels, as the slow loop takes it."""
    height, width = canvas
    red, blue = (colour_latent(model, vae, colour, "") for colour in ("red", "#2040ff"))
    dog = (round(0.125 * width), round(0.25 * height), round(0.625 * width), round(0.875 * height))
    cat = (round(0.5 * width), 0, width, round(0.5 * height))
    return [
        ("on a meadow", None, None),
        ("a dog", dog, strength * red),
        ("a small cat", cat, 0.5 * strength * blue),
    ]


def starting_point(run):
    height, width = (side // 8 for side in run.canvas)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, height, width), SEED)
    return noise * (run.sigmas[0] if run.kind == "FLOW" else torch.sqrt(run.sigmas[0] ** 2 + 1))


def assert_same_picture(found, expected):
    """Equal to 1e-4 of the picture's own size; random weights may give large ones."""
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)
