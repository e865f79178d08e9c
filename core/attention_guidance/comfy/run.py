"""What attention guidance does around one run of a ComfyUI sampler."""

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ...attention.comfy.families import UNET, Family
from ...attention.comfy.found_blocks import find_blocks, is_found
from ...attention.comfy.prompts import length_in
from ...attention.recorder import AttentionRecorder
from ...attention.sites import BLOCK, CROSS, SELF, Site
from ...comfy.runs import Run
from ...comfy.sampling import signal_and_noise
from ...comfy.types import Denoiser, Entry, Options, Sampler
from ..descent import descend
from ..energies import Maps
from ..log import GuidedRunLog, Measurement
from ..published import Energy
from ..settings import Guidance
from ..transformer_maps import energy_of_blocks
from .gradients import AttentionGradient
from .guided_prompt import GuidedPrompt, Words, entries_like, region_masks

WRAPPER = "stagecraft_attention_guidance"


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
    """One run of a sampler: the guided prompts' entries among the guider's, and how far the energy has come.

    Args:
        run: before it begins.
        family: of its network.
        energy: with a person's settings.
        guidance: the settings.
        prompts: that are guided.
    """

    def __init__(
        self, run: Run, family: Family, energy: Energy, guidance: Guidance, prompts: Sequence[GuidedPrompt]
    ) -> None:
        self.guider, self.family, self.chosen, self.guidance = run.guider, family, energy, guidance
        self.sampling = run.model_sampling
        self.latent: tuple[int, int] = tuple(run.noise.shape[-2:])
        # In float32, as samplers hold them.
        self.first, self.last = (
            torch.tensor(float(self.sampling.percent_to_sigma(share)), dtype=torch.float32).item()
            for share in (guidance.start_at, energy.end)
        )
        self.log = GuidedRunLog(f"Attention guidance ({guidance.energy})", energy.threshold)
        # Beside the sampler's prompts: ComfyUI prepares every list of them, and evaluates those that it is asked to.
        self.name = f"{WRAPPER}_{len(self.guider.conds)}"
        self.prompts: dict[Hashable, GuidedPrompt] = {}
        entries: list[Entry] = []
        for prompt in prompts:
            own = entries_like(prompt.embedded, self.guider.conds)
            self.prompts |= {entry["uuid"]: prompt for entry in own}
            entries += own
        self.guider.conds[self.name] = entries
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
            x: (b c h w) or (b c f h w).
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
            if is_found(self.chosen.sites) and self.family is not UNET and not self.gradient.known:
                self.gradient.known = self._found_blocks(see(x), sigma, model_options)
            energy, gradient = self.gradient(see(x), sigma, model_options)
            _check_finite(energy, gradient, level)
            return energy, gradient * freedom

        def report(energy: Tensor) -> None:
            self.log.measurements.append(Measurement(self.calls, level, tuple(energy.tolist())))
            self.log.note_sites(self.gradient.known)

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
        """Of the guided prompts' energy; there is none before the model is loaded and its prompts are prepared."""
        return AttentionGradient(
            self.guider.inner_model, self._entries, self._recorder, self._measure, self.guidance.checkpointing
        )

    @property
    def _entries(self) -> list[Entry]:
        # Not those that ComfyUI adds as counterparts of prompts with an area.
        return [entry for entry in self.guider.conds[self.name] if entry["uuid"] in self.prompts]

    def _found_blocks(self, x: Tensor, sigma: Tensor, model_options: Options) -> frozenset[Site]:
        """Measure once where a transformer's phrases look; as a U-Net's places say it for others."""
        first = next(iter(self.prompts.values()))
        entries = [entry for entry in self._entries if self.prompts[entry["uuid"]] is first]
        columns = {entry["uuid"]: [each.prompt for each in first.words] for entry in entries}
        inner, keeps_self = self.guider.inner_model, self.chosen.needs_self
        return find_blocks(inner, entries, columns, x, sigma, model_options, keeps_self=keeps_self)

    def _recorder(self, entry: Entry, known: frozenset[Site]) -> AttentionRecorder:
        words = self.prompts[entry["uuid"]].words
        return AttentionRecorder(
            self.chosen.sites,
            self.latent,
            [each.positions for each in words],
            lengths=[length_in(self.family, each.prompt, entry) for each in words],
            regions=region_masks(words) if self.chosen.needs_self else None,
            known=known,
        )

    def _measure(self, entry: Entry, maps: Maps) -> Tensor:
        prompt, progress = self.prompts[entry["uuid"]], self.progress
        if len(prompt.words) == 1:
            return _measure_words(self.chosen, maps, prompt.words[0], progress)
        return torch.cat(
            [
                _measure_picture(self.chosen, maps, row, each, progress, row in prompt.rows)
                for row, each in enumerate(prompt.words)
            ]
        )


def _measure_picture(energy: Energy, maps: Maps, row: int, words: Words, progress: float, is_meant: bool) -> Tensor:
    """Energy (1) of one picture among others with other prompts."""
    if not words.targets or not is_meant:  # its regions are all switched off: nothing moves it
        return sum(found[row : row + 1].sum((1, 2, 3)) for found in maps.values()) * 0
    # Recorded tokens and regions are filled up to the largest number of all pictures.
    kept = {CROSS: len(words.positions), SELF: len(words.targets)}
    own = {site: found[row : row + 1, ..., : kept[site.stream]] for site, found in maps.items()}
    return _measure_words(energy, own, words, progress)


def _measure_words(energy: Energy, maps: Maps, words: Words, progress: float) -> Tensor:
    """Energy (b) of pictures with one prompt."""
    if next(iter(maps)).part != BLOCK:
        return energy.measure(maps, words.targets, progress)
    compared = words.compared if energy.needs_all_words else ()
    return energy_of_blocks(lambda maps: energy.measure(maps, words.targets, progress), maps, compared)


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


def _check_finite(energy: Tensor, gradient: Tensor, level: float) -> None:
    if not bool(torch.isfinite(energy).all() & torch.isfinite(gradient).all()):
        what = "energy" if not bool(torch.isfinite(energy).all()) else "gradient"
        raise ValueError(
            f"The {what} of attention guidance is not a number at noise level {level:.4g}: the picture has broken. "
            "Lower the strength, or the iterations; with fp16 weights try --force-fp32 or bf16."
        )
