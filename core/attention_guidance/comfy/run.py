"""What attention guidance does around one run of a ComfyUI sampler."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...attention.comfy.recording import PLACE_OPTIONS
from ...attention.recorder import AttentionRecorder
from ...attention.sites import CROSS, SELF, Site
from ...comfy.guider import OURS
from ...comfy.runs import Run
from ...comfy.state import signal_and_noise
from ...comfy.types import Conditioning, Denoiser, Entry, Options, Sampler
from ..descent import descend
from ..energies import Maps
from ..log import GuidedRunLog, Measurement
from ..published import Energy
from ..settings import Guidance
from ..target import Target
from .gradients import AttentionGradient

WRAPPER = "stagecraft_attention_guidance"
# Of the sampler's prompt, what does not apply to another prompt for the whole canvas and the whole run. Nor does what
# our other methods have written on it: they would take the guided prompt for one of theirs.
NOT_COPIED = (
    *PLACE_OPTIONS,
    "set_area_to_bounds",
    "default",
    "start_percent",
    "end_percent",
    "clip_start_percent",
    "clip_end_percent",
    "cross_attn",
    "pooled_output",
    "attention_mask",
    "model_conds",
    "uuid",
)


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


@dataclass
class _Trajectory:
    """How far guidance has come with one of the states of a run.

    Attributes:
        energy: (b), the last one; None before the first.
        is_over: whether the rest of it is left alone.
    """

    energy: Tensor | None = None
    is_over: bool = False


class GuidedRun:
    """One run of a sampler: the guided prompt's entries among the guider's, and how far the energy has come.

    Args:
        run: before it begins.
        energy: with a person's settings.
        guidance: the settings.
        words: of each layout, one for each picture or one for all.
        embedded: the guided prompt.
    """

    def __init__(
        self, run: Run, energy: Energy, guidance: Guidance, words: Sequence[Words], embedded: Conditioning
    ) -> None:
        self.guider, self.chosen, self.guidance, self.words = run.guider, energy, guidance, words
        self.sampling = run.model_sampling
        self.latent: tuple[int, int] = tuple(run.noise.shape[-2:])
        # In float32, as samplers hold them.
        self.first, self.last = (
            torch.tensor(float(self.sampling.percent_to_sigma(share)), dtype=torch.float32).item()
            for share in (guidance.start, energy.end)
        )
        self.log = GuidedRunLog(f"Attention guidance ({guidance.energy})", energy.threshold)
        entries = _entries_like(embedded, self.guider.conds)
        # Beside the sampler's prompts: ComfyUI prepares every list of them, and evaluates those that it is asked to.
        self.name = f"{WRAPPER}_{len(self.guider.conds)}"
        self.guider.conds[self.name] = entries
        self.uuids = {entry["uuid"] for entry in entries}
        # Of the whole run, whatever pieces a sampler is given it in.
        self.steps: list[float] = run.sigmas.tolist()
        self.trajectories: dict[frozenset[object], _Trajectory] = {}
        self.progress = 0.0
        self.calls = 0

    def around(self, sampler: Sampler) -> Sampler:
        """The same sampler with a model that is guided before it is called."""
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"Attention guidance changes the state that a sampler holds, which {type(sampler).__name__} does not "
                "allow. Choose a sampler of KSampler or KSamplerSelect."
            )

        # What is known of a sampler is read from its function's name and parameters.
        @functools.wraps(sampler.sampler_function)
        def sample(model: Denoiser, x: Tensor, sigmas: Tensor, *args: object, **kwargs: object) -> Tensor:
            return sampler.sampler_function(_GuidedModel(self, model), x, sigmas, *args, **kwargs)

        return comfy.samplers.KSAMPLER(sample, sampler.extra_options, sampler.inpaint_options)

    def move(
        self,
        x: Tensor,
        sigma: Tensor,
        see: Callable[[Tensor], Tensor],
        freedom: Tensor | float,
        model_options: Options,
    ) -> None:
        """Change a state in place, as often as the settings say.

        Args:
            x: (b c h w).
            sigma: (b).
            see: what the model is shown of a state.
            freedom: how much of each value the sampler may change, 0..1; also the derivative of `see`.
            model_options: of the run.
        """
        self.calls += 1
        level = float(sigma.max())
        trajectory = self.trajectories.setdefault(self._seen(), _Trajectory())
        if not self._is_due(level, trajectory):
            return
        steps = self.steps
        done, count = sum(step > level * (1 + 1e-6) for step in steps[:-1]), max(1, len(steps) - 1)
        self.progress = done / count

        def measure(x: Tensor) -> tuple[Tensor, Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            energy, gradient = self.gradient(see(x), sigma, model_options)
            _check_finite(energy, gradient, level)
            return energy, gradient * freedom

        def report(energy: Tensor) -> None:
            self.log.measurements.append(Measurement(self.calls, level, tuple(energy.tolist())))

        how = self.chosen.descent(self.progress, (done + 1) / count, self.guidance.strength)
        before = trajectory.energy if self.chosen.persists else None
        signal, noise = map(float, signal_and_noise(self.sampling, x[:1], sigma.max()[None]))
        moved, trajectory.energy = descend(x, signal, noise, measure, how, before, report=report)
        x.copy_(moved)

    def _seen(self) -> frozenset[object]:
        """The prompts that the state in hand is painted from; layers that are sampled apart have their own."""
        return frozenset(entry["uuid"] for entry in self.guider.conds.get("positive", ()))

    def _is_due(self, level: float, trajectory: "_Trajectory") -> bool:
        """Whether a noise level is guided; below the last one guidance ends for the rest of a trajectory."""
        if trajectory.is_over:
            return False
        if self.last <= level <= self.first:
            return True
        # Samplers that look ahead come back to higher levels, by one or two steps.
        trajectory.is_over = sum(level <= step < self.last for step in self.steps) > 2
        return False

    @functools.cached_property
    def gradient(self) -> AttentionGradient:
        """Of the guided prompt's energy; there is none before the model is loaded and its prompts are prepared."""
        # Not those that ComfyUI adds as counterparts of prompts with an area.
        entries = [entry for entry in self.guider.conds[self.name] if entry["uuid"] in self.uuids]
        return AttentionGradient(
            self.guider.inner_model, entries, self._recorder, self._measure, self.guidance.checkpointing
        )

    def _recorder(self, known: frozenset[Site]) -> AttentionRecorder:
        regions = _region_masks(self.words, *self.latent) if self.chosen.needs_self else None
        columns = [each.positions for each in self.words]
        lengths = [each.length for each in self.words]
        return AttentionRecorder(self.chosen.sites, self.latent, columns, lengths=lengths, regions=regions, known=known)

    def _measure(self, maps: Maps) -> Tensor:
        chosen, words, progress = self.chosen, self.words, self.progress
        if len(words) == 1:
            return chosen.measure(maps, words[0].targets, progress)
        return torch.cat([_measure_picture(chosen, maps, row, each, progress) for row, each in enumerate(words)])


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

    def __init__(self, run: GuidedRun, model: Denoiser) -> None:
        self.run, self.model = run, model

    def __getattr__(self, name: str) -> object:  # what samplers look up on ComfyUI's model
        return getattr(self.model, name)

    def __call__(self, x: Tensor, sigma: Tensor, *args: object, **kwargs: object) -> Tensor:
        options, mask = kwargs.get("model_options", {}), kwargs.get("denoise_mask")
        if mask is None:
            self.run.move(x, sigma, lambda state: state, 1.0, options)
        else:
            self.run.move(x, sigma, *self._inpainting(sigma, mask, options), options)
        return self.model(x, sigma, *args, **kwargs)

    def _inpainting(self, sigma: Tensor, mask: Tensor, options: Options) -> tuple[Callable[[Tensor], Tensor], Tensor]:
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


def _entries_like(embedded: Conditioning, conds: dict[str, list[Entry]]) -> list[Entry]:
    """The guided prompt with all that the sampler's prompt for the whole canvas has besides its text."""
    given = conds.get("positive") or next(iter(conds.values()))
    whole = next((entry for entry in given if "mask" not in entry and "area" not in entry), given[0])
    options = {key: value for key, value in whole.items() if key not in NOT_COPIED and not str(key).startswith(OURS)}
    entries = comfy.sampler_helpers.convert_cond(embedded)
    return [{**options, **entry} for entry in entries]


def _check_finite(energy: Tensor, gradient: Tensor, level: float) -> None:
    if not bool(torch.isfinite(energy).all() & torch.isfinite(gradient).all()):
        what = "energy" if not bool(torch.isfinite(energy).all()) else "gradient"
        raise ValueError(
            f"The {what} of attention guidance is not a number at noise level {level:.4g}: the picture has broken. "
            "Lower the strength, or the iterations; with fp16 weights try --force-fp32 or bf16."
        )
