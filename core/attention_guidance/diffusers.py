"""Attention guidance of latents in programs that use diffusers: in a loop of one's own, or in a pipeline's callback."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..attention.diffusers import record_attention
from ..attention.recorder import AttentionRecorder
from ..attention.sites import Site
from ..clip.phrases import Word, find_phrases, words_of
from ..clip.pieces import Spelling
from ..layout.masks import resample_by_area
from ..weights.differentiable import GradientSession, normal_copy
from .descent import descend
from .published import CHEN, Energy, named_energy
from .target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin
    from transformers import CLIPTokenizer

HALF_PRECISION_GAIN = 2.0**12  # gradients of attention are small numbers, which float16 would round to nothing


def token_columns(tokenizer: "CLIPTokenizer", prompt: str, phrase: str, beside: Sequence[str] = ()) -> tuple[int, ...]:
    """Positions of a phrase's tokens in a prompt, but for its article; every occurrence counts.

    Args:
        tokenizer: the pipeline's; SDXL's two agree about positions.
        prompt: what is embedded.
        phrase: a part of it, word for word.
        beside: other phrases that are guided; a token belongs to the longest that covers it, so in "a fire truck and a
            fire" the fire beside "a fire truck" is the second one alone.

    Raises:
        ValueError: the prompt does not say the phrase, or only within others, or only behind what the text encoder
            reads.
    """
    spelling, special = Spelling.of(tokenizer.get_vocab()), set(tokenizer.all_special_ids)

    def words(text: str, **cut: bool) -> list[Word]:
        ids = tokenizer(text, **cut).input_ids
        pieces = tokenizer.convert_ids_to_tokens(ids)
        return words_of(
            [b"" if token in special else spelling.read(piece) for token, piece in zip(ids, pieces, strict=True)]
        )

    asked = [words(text) for text in (phrase, *beside)]
    found = find_phrases(words(prompt, truncation=True), asked, endings=False)[0]
    if not found:
        within = " outside of the other phrases" if beside else ""
        raise ValueError(
            f'The first {tokenizer.model_max_length} tokens of the prompt "{prompt}" do not say "{phrase}"{within}. '
            "Write it into the prompt, word for word."
        )
    return tuple(found)


@torch.inference_mode(False)
def guide_latents(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timestep: Tensor | float,
    text_embeddings: Tensor,
    scheduler: "SchedulerMixin",
    targets: Sequence[Target],
    *,
    energy: str | Energy = CHEN,
    strength: float = 1.0,
    progress: float = 0.0,
    words: Sequence[int] = (),
    **inputs: object,
) -> tuple[Tensor, Tensor]:
    """Move latents so that phrases look into their regions: what Chen et al. do before a step (arXiv 2304.03373).

    Call it before the U-Net is evaluated with the scheduler's timestep, while energies are above the threshold:

        scheduler.set_timesteps(50)
        targets = [Target(token_columns(tokenizer, prompt, "a cat"), mask)]
        latents = torch.randn(1, 4, 64, 64) * scheduler.init_noise_sigma
        energy = torch.inf
        for i, t in enumerate(scheduler.timesteps):
            if i < 10 and energy > 0.2:
                latents, energy = guide_latents(unet, latents, t, embedded_prompt, scheduler, targets, progress=i / 50)
            ...  # the U-Net with classifier-free guidance and scheduler.step, as ever

    `guide_at_step_end` does the same inside a pipeline. Gradients are switched on in here. No weight is copied.

    Args:
        unet: of SD 1.x, SD 2.x, SDXL or the like.
        latents: (b c h w), as the scheduler holds them: x0 + sigma noise (Euler, LMS), or that at unit variance (DDIM).
        timestep: the coming one.
        text_embeddings: (b t c) or (1 t c), of the prompt alone, without the negative one.
        scheduler: on which `set_timesteps` has been called.
        targets: for each region its tokens' positions in the prompt, its mask (any grid), and its weight.
        energy: its name, or with settings of your own, such as `replace(named_energy("chen"), iterations=2)`.
        strength: factor on the published step. 0 changes nothing.
        progress: share of the steps that is done, 0..1; some energies depend on it.
        words: positions of all of the prompt's words, which "boxdiff" and "refocusing" compare with each other.
        inputs: more of the U-Net's own, such as SDXL's added_cond_kwargs, for the same rows.

    Returns:
        The latents, and the energy (b) of every picture before its last step.

    Raises:
        ValueError: a scheduler or a U-Net that this does not work with, an energy whose words are missing, or one that
            is not finite.
    """
    energy = named_energy(energy) if isinstance(energy, str) else energy
    if energy.needs_all_words and not words:
        raise ValueError("This energy compares all words of the prompt: pass their positions as `words`.")
    sigma, variance_explodes = _noise_level(scheduler, timestep)
    shrink = (sigma**2 + 1) ** -0.5  # of x0 + sigma noise to unit variance, which the U-Net wants
    columns, targets = _recorded(targets, words if energy.needs_all_words else ())
    regions = None
    if energy.needs_self:
        regions = torch.stack([resample_by_area(target.mask, *latents.shape[-2:]) for target in targets])
    session = GradientSession(unet)
    known: frozenset[Site] = frozenset()

    def measure(latents: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal known
        recorder = AttentionRecorder(energy.sites, latents.shape[-2:], [columns], regions=regions, known=known)
        with session, torch.enable_grad():
            x = (latents.detach().float() if variance_explodes else latents.detach().float() / shrink).clone()
            x.requires_grad_()
            text = normal_copy(text_embeddings).expand(len(x), -1, -1)
            with record_attention(unet, recorder, leave_early=True):
                unet((x * shrink).to(unet.dtype), timestep, text, **normal_copy(inputs))
            values = energy.measure(recorder.maps, targets, progress)
            gradient = _gradient(values.sum(), x, HALF_PRECISION_GAIN if unet.dtype == torch.float16 else 1.0)
        if not (values.isfinite().all() and gradient.isfinite().all()):
            raise ValueError("The energy of the attention, or its gradient, is not finite: guidance cannot go on.")
        known = frozenset(recorder.maps)
        return values.detach(), gradient

    how = energy.descent(progress, progress + 1 / len(scheduler.timesteps), strength)
    return descend(latents, 1.0, sigma, measure, how, unit=1.0 if variance_explodes else shrink)


def _gradient(value: Tensor, x: Tensor, gain: float) -> Tensor:
    """Gradient of a value that is enlarged by a gain on the way back; by less where that overflows."""
    while True:
        (found,) = torch.autograd.grad(value * gain, x, retain_graph=gain > 1)
        if gain <= 1 or found.isfinite().all():
            return found / gain
        gain /= 2**4


def guide_at_step_end(
    targets: Sequence[Target],
    *,
    energy: str | Energy = CHEN,
    **settings: object,
) -> Callable[..., dict[str, Tensor]]:
    """A `callback_on_step_end` with which a diffusers pipeline guides by attention.

        pipe(prompt, callback_on_step_end=guide_at_step_end(targets),
             callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])

    SDXL's pipelines need "add_text_embeds" and "add_time_ids" in that list too. A pipeline calls back after each step,
    so all steps but the first are guided; a loop of one's own around `guide_latents` guides the first too. Make a new
    callback for every run, because it remembers that its pictures are in place.

    Args:
        targets: as in `guide_latents`.
        energy: likewise.
        settings: strength and words, likewise.
    """
    energy = named_energy(energy) if isinstance(energy, str) else energy
    in_place = False

    def callback(
        pipe: "DiffusionPipeline", step: int, _timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        nonlocal in_place
        timesteps, coming = pipe.scheduler.timesteps, step + 1
        progress = coming / len(timesteps)
        if in_place or coming >= len(timesteps) or progress >= energy.end:
            return {}
        latents = tensors["latents"]
        inputs = {}
        # Classifier-free guidance puts the negative prompt's rows first.
        rows = slice(-len(latents), None)
        if "add_text_embeds" in tensors:
            sizes = {"text_embeds": tensors["add_text_embeds"][rows], "time_ids": tensors["add_time_ids"][rows]}
            inputs["added_cond_kwargs"] = sizes
        text, how = tensors["prompt_embeds"][rows], settings | {"energy": energy, "progress": progress}
        latents, found = guide_latents(
            pipe.unet, latents, timesteps[coming], text, pipe.scheduler, targets, **how, **inputs
        )
        in_place = energy.persists and bool((found <= energy.threshold).all())
        return {"latents": latents}

    return callback


def _recorded(targets: Sequence[Target], words: Sequence[int]) -> tuple[Tensor, list[Target]]:
    """The positions to record, and the targets in terms of these."""
    columns = sorted({*words, *(column for target in targets for column in target.columns)})
    renamed = [
        replace(each, columns=tuple(columns.index(column) for column in each.columns), mask=normal_copy(each.mask))
        for each in targets
    ]
    return torch.tensor(columns), renamed


def _noise_level(scheduler: "SchedulerMixin", timestep: Tensor | float) -> tuple[float, bool]:
    """Sigma, and whether latents are x0 + sigma noise; else they are that divided by sqrt(sigma^2 + 1)."""
    if not hasattr(scheduler, "scale_model_input") or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"{type(scheduler).__name__} is not made for models that predict noise or v. SD 1.x, SD 2.x and SDXL work "
            "with, for example, EulerDiscreteScheduler or DDIMScheduler."
        )
    seen = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep))
    if seen != 1:
        return (seen**-2 - 1) ** 0.5, True
    alpha = float(scheduler.alphas_cumprod[int(timestep)])
    return ((1 - alpha) / alpha) ** 0.5, False
