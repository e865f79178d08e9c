"""What attention guidance does around one run of a ComfyUI sampler."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...attention.comfy.recording import PLACE_OPTIONS
from ...attention.recorder import AttentionRecorder
from ...attention.sites import CROSS, SELF, Site
from ...soft_guidance.comfy.tokens import MASKS, SETTINGS, TOKENS
from ..energies import Maps
from ..log import GuidedRunLog, Measurement
from ..published import Energy
from ..step import guidance_step
from ..target import Target
from .gradients import AttentionGradient

WRAPPER = "stagecraft_attention_guidance"
# Of the sampler's prompt, what does not apply to another prompt for the whole canvas and the whole run.
NOT_COPIED = (
    *PLACE_OPTIONS, "set_area_to_bounds", "default", "start_percent", "end_percent", "clip_start_percent",
    "clip_end_percent", "cross_attn", "pooled_output", "attention_mask", "model_conds", "uuid", TOKENS, MASKS, SETTINGS,
)  # fmt: skip


@dataclass(frozen=True)
class Words:
    """Where one layout's phrases are among the recorded tokens, and what shall be there.

    Attributes:
        positions: int64 (m), of the recorded tokens along the prompt.
        length: of the prompt in tokens.
        targets: one for each region that is guided; columns count through `positions`.
    """

    positions: Tensor
    length: int
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Settings:
    """What a person chose; see `comfy_attention_guidance.guide_attention`."""

    energy: Energy
    name: str
    strength: float
    iterations: int | None
    start: float
    end: float
    threshold: float
    step_rule: str
    checkpointing: bool


class GuidedRun:
    """One run of a sampler: the guided prompt's entries among the guider's, and how far the energy has come."""

    def __init__(self, guider: Any, settings: Settings, words: Sequence[Words], embedded: list[list[Any]]) -> None:  # noqa: ANN401
        self.guider, self.settings, self.words = guider, settings, words
        sampling = guider.model_patcher.get_model_object("model_sampling")
        # In float32, as samplers hold them.
        self.first, self.last = (
            torch.tensor(float(sampling.percent_to_sigma(share)), dtype=torch.float32).item()
            for share in (settings.start, settings.end)
        )
        self.log = GuidedRunLog(f"Attention guidance ({settings.name})", settings.threshold)
        entries = _entries_like(embedded, guider.conds)
        # Beside the sampler's prompts: ComfyUI prepares every list of them, and evaluates those that it is asked to.
        self.name = f"{WRAPPER}_{len(guider.conds)}"
        guider.conds[self.name] = entries
        self.uuids = {entry["uuid"] for entry in entries}
        self.energy: Tensor | None = None
        self.gradient: AttentionGradient | None = None
        self.calls = 0
        self.is_over = False

    def around(self, sampler: Any) -> Any:  # noqa: ANN401 - ComfyUI's samplers
        """The same sampler with a model that is guided before it is called."""
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"Attention guidance changes the state that a sampler holds, which {type(sampler).__name__} does not "
                "allow. Choose a sampler of KSampler or KSamplerSelect."
            )

        # What is known of a sampler is read from its function's name and parameters.
        @functools.wraps(sampler.sampler_function)
        def sample(model: Any, x: Tensor, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
            steps = sigmas.tolist()
            return sampler.sampler_function(_GuidedModel(self, model, steps), x, sigmas, *args, **kwargs)

        return comfy.samplers.KSAMPLER(sample, sampler.extra_options, sampler.inpaint_options)

    def move(
        self,
        x: Tensor,
        sigma: Tensor,
        steps: Sequence[float],
        see: Callable[[Tensor], Tensor],
        freedom: Tensor | float,
        model_options: dict[str, Any],
    ) -> None:
        """Change a state in place, as often as the settings say.

        Args:
            x: (b c h w).
            sigma: (b).
            steps: noise levels of the run.
            see: what the model is shown of a state.
            freedom: how much of each value the sampler may change, 0..1; also the derivative of `see`.
            model_options: of the run.
        """
        self.calls += 1
        if self.is_over:
            return
        level = float(sigma.max())
        if not self.last <= level <= self.first:
            # Samplers that look ahead come back to higher levels, by one or two steps.
            self.is_over = sum(level <= step < self.last for step in steps) > 2
            return
        settings = self.settings
        done, count = sum(step > level * (1 + 1e-6) for step in steps[:-1]), max(1, len(steps) - 1)
        progress = done / count
        scale, iterations = settings.energy.schedule(progress, (done + 1) / count)
        if settings.iterations is not None and iterations:
            iterations = settings.iterations
        if self.energy is None or not settings.energy.persists:
            self.energy = torch.full((len(x),), torch.inf, device=x.device)
        for _ in range(iterations):
            active = self.energy > settings.threshold
            if not bool(active.any()):
                break
            comfy.model_management.throw_exception_if_processing_interrupted()
            energy, gradient = self._measure(see(x), sigma, progress, model_options)
            _check_finite(energy, gradient, level)
            step = guidance_step(gradient * freedom, level, settings.step_rule, scale, settings.strength)
            x.sub_((step * active.reshape(-1, 1, 1, 1)).to(x.dtype))
            self.energy = torch.where(active, energy, self.energy)
            self.log.measurements.append(Measurement(self.calls, level, tuple(self.energy.tolist())))

    def _measure(
        self, x: Tensor, sigma: Tensor, progress: float, model_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        if self.gradient is None:
            self.gradient = AttentionGradient(self.guider.inner_model, self.settings.checkpointing)
        # Not those that ComfyUI adds as counterparts of prompts with an area.
        entries = [entry for entry in self.guider.conds[self.name] if entry["uuid"] in self.uuids]
        latent, words = tuple(x.shape[-2:]), self.words
        chosen = self.settings.energy

        def recorder(known: frozenset[Site]) -> AttentionRecorder:
            regions = _region_masks(words, *latent) if chosen.needs_self else None
            columns = [each.positions for each in words]
            lengths = [each.length for each in words]
            return AttentionRecorder(chosen.sites, latent, columns, lengths=lengths, regions=regions, known=known)

        def measure(maps: Maps) -> Tensor:
            if len(words) == 1:
                return chosen.measure(maps, words[0].targets, progress)
            return torch.cat([_measure_picture(chosen, maps, row, each, progress) for row, each in enumerate(words)])

        return self.gradient(entries, recorder, measure, x, sigma, model_options)


def _measure_picture(energy: Energy, maps: Maps, row: int, words: Words, progress: float) -> Tensor:
    """Energy (1) of one picture among others with other prompts."""
    if not words.targets:  # its regions are all switched off: nothing moves it
        return sum(found[row : row + 1].sum((1, 2, 3)) for found in maps.values()) * 0
    # Recorded tokens and regions are filled up to the largest number of all pictures.
    kept = {CROSS: len(words.positions), SELF: len(words.targets)}
    own = {site: found[row : row + 1, ..., : kept[site.stream]] for site, found in maps.items()}
    return energy.measure(own, words.targets, progress)


class _GuidedModel:
    """The model as a sampler calls it; first its state is guided."""

    def __init__(self, run: GuidedRun, model: Any, steps: Sequence[float]) -> None:  # noqa: ANN401
        self.run, self.model, self.steps = run, model, steps

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what samplers look up on ComfyUI's model
        return getattr(self.model, name)

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        options, mask = kwargs.get("model_options", {}), kwargs.get("denoise_mask")
        if mask is None:
            self.run.move(x, sigma, self.steps, lambda state: state, 1.0, options)
        else:
            self.run.move(x, sigma, self.steps, *self._inpainting(sigma, mask, options), options)
        return self.model(x, sigma, *args, **kwargs)

    def _inpainting(
        self, sigma: Tensor, mask: Tensor, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """What ComfyUI's inpainting shows the model: outside the mask the given picture with noise."""
        model, adapt = self.model, options.get("denoise_mask_function")
        inner = model.inner_model
        if adapt is not None:
            mask = adapt(sigma, mask, extra_options={"model": inner, "sigmas": model.sigmas})

        def see(x: Tensor) -> Tensor:
            given = inner.inner_model.scale_latent_inpaint(
                x=x, sigma=sigma, noise=model.noise, latent_image=model.latent_image
            )
            return x * mask + given * (1 - mask)

        return see, mask


def _region_masks(words: Sequence[Words], height: int, width: int) -> Tensor:
    """(o h w), or (b o h w) with empty masks where a picture has fewer regions."""
    most = max(len(each.targets) for each in words)
    # Of any picture: all regions of some may be switched off.
    empty = torch.zeros_like(next(target.mask for each in words for target in each.targets))
    masks = [
        torch.stack([target.mask for target in each.targets] + [empty] * (most - len(each.targets))) for each in words
    ]
    return masks[0] if len(masks) == 1 else torch.stack(masks)


def _entries_like(embedded: list[list[Any]], conds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The guided prompt with all that the sampler's prompt for the whole canvas has besides its text."""
    given = conds.get("positive") or next(iter(conds.values()))
    whole = next((entry for entry in given if "mask" not in entry and "area" not in entry), given[0])
    options = {key: value for key, value in whole.items() if key not in NOT_COPIED}
    entries = comfy.sampler_helpers.convert_cond(embedded)
    return [{**options, **entry} for entry in entries]


def _check_finite(energy: Tensor, gradient: Tensor, level: float) -> None:
    if not bool(torch.isfinite(energy).all() & torch.isfinite(gradient).all()):
        what = "energy" if not bool(torch.isfinite(energy).all()) else "gradient"
        raise ValueError(
            f"The {what} of attention guidance is not a number at noise level {level:.4g}: the picture has broken. "
            "Lower the strength, or the iterations; with fp16 weights try --force-fp32 or bf16."
        )
