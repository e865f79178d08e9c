"""LRDiff as the authors' script has it: every layer on a trajectory of its own up to t0, then one latent of all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.samplers
import torch
from torch import Tensor

from ...comfy.types import Entry, Options, Sampler
from ..compositing import join_layers
from ..vision_guidance import AS_PUBLISHED, EVERY_STEP, PUBLISHED_INJECTIONS
from .fresh_noise import GIVEN, fresh_noise
from .layer_on_grid import RunLayer
from .run import LayeredRun

StepCallback = Callable[[Options], None]  # as sampler functions call it: with what they know after a step


def sample_apart(run: LayeredRun, sampler: Sampler) -> Sampler:
    """A sampler that samples every layer by itself down to t0, puts the latents together, and goes on with the result.

    The given sampler does all the sampling: once for each layer and once for the rest, so one that remembers earlier
    steps starts its memory anew at t0. The noise that it adds on its way is that of the run: the same for all layers.

    Args:
        run: the layers of this run.
        sampler: ComfyUI's KSAMPLER.

    Raises:
        ValueError: a sampler of another kind, a run that begins or ends between its start and t0, or noise on the way
            that cannot be that of the run.
    """
    _check_whole(run)
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        raise ValueError(
            f'The mode "trajectories" stops the sampler at end_at, which {type(sampler).__name__} does not allow. '
            'Choose a sampler of KSampler or KSamplerSelect, or the mode "paper".'
        )
    inner = sampler.sampler_function

    def sample(
        model: comfy.samplers.KSamplerX0Inpaint,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options | None = None,
        callback: StepCallback | None = None,
        disable: bool | None = None,
        **options: object,
    ) -> Tensor:
        extra_args = extra_args or {}
        layered = int((sigmas[:-1] >= run.apart_until).sum())
        progress = _Progress(callback, layered, len(run.layers), len(sigmas) - 1)
        noise = fresh_noise(sampler, x, sigmas, extra_args.get("seed")) if layered else None
        given = options if noise is None else {**options, GIVEN: noise}

        def go(x: Tensor, start: int, end: int) -> Tensor:
            if end <= start:
                return x
            report = progress.next(end - start)
            return inner(
                model, x, sigmas[start : end + 1], extra_args=extra_args, callback=report, disable=disable, **given
            )

        if layered:
            sigma = sigmas[:1].expand(len(x))
            run.measure(x, sigma, extra_args.get("model_options", {}))
            states = []
            for layer in run.layers:
                if noise is not None:
                    noise.start_again()
                with _only(run, layer):
                    states.append(_one_layer(run, layer, go, x, sigmas, layered))
            x = join_layers(torch.stack(states), torch.stack([layer.visible_for(x) for layer in run.layers]))
        with _only(run, None):
            return go(x, layered, len(sigmas) - 1)

    return comfy.samplers.KSAMPLER(sample, sampler.extra_options, sampler.inpaint_options)


def _check_whole(run: LayeredRun) -> None:
    """Refuse a piece of a run whose other piece had, or will have, a latent of its own for every layer."""
    first, last = float(run.sigmas[0]), float(run.sigmas[-1])
    remedy = f'at noise level {run.apart_until:.4g} (end_at) or after it, or choose the mode "paper"'
    if run.run.goes_on and first >= run.apart_until:
        raise ValueError(
            f'This run goes on from a latent at noise level {first:.4g}, where in the mode "trajectories" every layer '
            f"has a latent of its own. Split the run {remedy}."
        )
    if 0 < last and last >= run.apart_until:
        raise ValueError(
            f'This run stops at noise level {last:.4g}, where in the mode "trajectories" every layer still has a '
            f"latent of its own. Let it stop {remedy}."
        )


def _one_layer(
    run: LayeredRun,
    layer: RunLayer,
    go: Callable[[Tensor, int, int], Tensor],
    x: Tensor,
    sigmas: Tensor,
    layered: int,
) -> Tensor:
    """A layer's latent at t0, from the noise x that all layers share."""
    if layer.xi is None or layer.inject == EVERY_STEP:
        return go(x, 0, layered)
    xi = layer.xi_for(x)
    x = x + xi * run.scale_of_state(x, sigmas[:1].expand(len(x)))
    if layer.inject != AS_PUBLISHED:
        return go(x, 0, layered)
    again = min(layered, PUBLISHED_INJECTIONS)
    for step in range(again):
        x = go(x, step, step + 1)
        # The script's own scale: multiplied up before xi is added and divided down afterwards, where xi would have to
        # be multiplied. At high noise next to nothing is added.
        x = x + xi / run.scale_of_state(x, sigmas[step + 1 : step + 2].expand(len(x)))
    return go(x, again, layered)


@contextmanager
def _only(run: LayeredRun, layer: RunLayer | None) -> Iterator[None]:
    """Let the guider see the entries of one layer, or the global ones; those of others stay where they are."""
    conds = run.guider.conds
    ours = run.layer_of.keys() | run.global_uuids

    def is_seen(entry: Entry) -> bool:
        uuid = entry["uuid"]
        return uuid not in ours or (uuid in run.global_uuids if layer is None else run.layer_of.get(uuid) is layer)

    run.guider.conds = {kind: [entry for entry in entries if is_seen(entry)] for kind, entries in conds.items()}
    run.alone = layer
    try:
        yield
    finally:
        run.guider.conds, run.alone = conds, None


class _Progress:
    """Reports the steps of all samplings as steps of the one run that the person started."""

    def __init__(self, callback: StepCallback | None, layered: int, layers: int, steps: int) -> None:
        self.callback, self.steps = callback, steps
        self.work = layered * layers + steps - layered
        self.done = 0

    def next(self, steps: int) -> StepCallback | None:
        """The callback of the next sampling, of so many steps."""
        before, self.done = self.done, self.done + steps
        if self.callback is None:
            return None

        def report(state: Options) -> None:
            share = (before + state["i"] + 1) / self.work
            self.callback({**state, "i": max(0, round(share * self.steps) - 1)})

        return report
