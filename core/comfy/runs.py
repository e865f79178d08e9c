"""A run of a ComfyUI sampler as a method sees it from outside, and what every method asks of it first."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import comfy.patcher_extension
from torch import Tensor

from ..layout.masks import is_same_aspect
from ..layout.region import LayoutError
from .progress import executing_node, warn_on_node
from .types import Callback, Entry, Executor, Guider, Model, ModelSampling, Options, Sampler, Wrappers

PICTURES, VIDEOS = 4, 5  # dimensions of a latent
# A schedule may begin a little below the model's highest noise level (ddim_uniform with 10 steps: 0.1 of the run).
LATEST_START = 0.11
WARNED = "stagecraft_warned"  # in the model options of one run: ids of nodes that have said something


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a sampler, before it begins.

    The guider's prompts and model options are ComfyUI's copies for this run: what is changed in them ends with it.

    Attributes:
        executor: what is inside; `go` calls it.
        noise: as the latent.
        latent: (b c h w) or (b c t h w), as a VAE gives it.
        sampler: that runs.
        sigmas: (s), falling.
        denoise_mask: where the latent may change, or None.
        callback: told of every step, or None.
        disable_pbar: show no progress bar on the console.
        rest: what this version of ComfyUI gives besides, in its order.
        named: what it gives by name.
        node_id: of the node that put the method around the run, or None outside a graph.
    """

    executor: Executor
    noise: Tensor
    latent: Tensor
    sampler: Sampler
    sigmas: Tensor
    denoise_mask: Tensor | None
    callback: Callback | None
    disable_pbar: bool
    rest: tuple[object, ...]
    named: dict[str, object]
    node_id: str | None = None

    @property
    def guider(self) -> Guider:
        """ComfyUI's, with this run's own copies of prompts and model options."""
        return self.executor.class_obj

    @property
    def model(self) -> Model:
        """That is sampled with."""
        return self.guider.model_patcher

    @property
    def model_sampling(self) -> ModelSampling:
        """How its states mix data and noise."""
        return self.model.get_model_object("model_sampling")

    @property
    def options(self) -> Options:
        """The model options of this run."""
        return self.guider.model_options

    @property
    def entries(self) -> list[Entry]:
        """Those of all prompts, the negative one's among them."""
        return [entry for conditioning in self.guider.conds.values() for entry in conditioning]

    @property
    def goes_on(self) -> bool:
        """Whether it goes on from where another run stopped: it adds no noise, and does not begin at the highest."""
        return not self.noise.any() and float(self.sigmas[0]) < self.model_sampling.percent_to_sigma(LATEST_START)

    @property
    def parts(self) -> int:
        """How many latents are packed into one, such as a video and its sound."""
        return len(self.named.get("latent_shapes") or [0])

    def reaches(self, first: float, last: float) -> bool:
        """Whether the model is evaluated at a noise level from `first` down to `last`, both included."""
        levels = self.sigmas[:-1]
        return bool(((levels <= first) & (levels >= last)).any())

    def warn(self, sentence: str) -> None:
        """Say something in the log and on the node that put the method around this run, once for each node and run."""
        warned = self.options.setdefault(WARNED, set())
        if self.node_id is None or self.node_id not in warned:
            warned.add(self.node_id)
            warn_on_node(self.node_id, sentence)

    def wrap(self, kind: Wrappers, key: str, wrapper: Callable[..., object]) -> None:
        """Put a function around something that happens within this run."""
        comfy.patcher_extension.add_wrapper_with_key(kind, key, wrapper, self.options, is_model_options=True)

    def go(self, **changed: object) -> Tensor:
        """Let it run, with some attributes changed; gives the samples (b c h w) or (b c t h w)."""
        run = replace(self, **changed)
        first = (run.noise, run.latent, run.sampler, run.sigmas, run.denoise_mask, run.callback, run.disable_pbar)
        # In ComfyUI's own order: other packs' wrappers inside ours may count on it.
        return run.executor(*first, *run.rest, **run.named)


@dataclass(frozen=True)
class _Wrapper:
    """ComfyUI's OUTER_SAMPLE wrapper of a method; two of one method are equal, as one function is to itself."""

    method: Callable[[Run], Tensor]
    node_id: str | None = field(default=None, compare=False)

    def __call__(
        self,
        executor: Executor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        *rest: object,
        **named: object,
    ) -> Tensor:
        first = (noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar)
        return self.method(Run(executor, *first, rest, named, self.node_id))


def around_runs(
    model: Model,
    key: str,
    method: Callable[[Run], Tensor],
    *,
    beside: Literal["keep", "add"] = "keep",
    outermost: bool = False,
) -> Model:
    """Give a clone of a model whose every run goes through a method, which calls `Run.go`.

    Args:
        model: that is cloned.
        key: names the method.
        method: gets the run and gives its samples.
        beside: what becomes of one with this key that the model has already: it is kept instead, or both are there.
        outermost: whether it gets what all others that the model has by now make of a run, too.

    A node that calls this asks for its hidden `unique_id`: ComfyUI then takes no other node's result for its own, so
    that a warning in a later run stands on the right one.
    """
    kind = Wrappers.OUTER_SAMPLE
    model = model.clone()
    if beside == "add" or not model.get_wrappers(kind, key):
        model.add_wrapper_with_key(kind, key, _Wrapper(method, executing_node()))
    if outermost:  # ComfyUI calls them in this order, each inside the one before
        model.wrappers[kind] = {key: model.wrappers[kind].pop(key)} | model.wrappers[kind]
    return model


def check_parts(
    run: Run, needs: str, instead: str, *, videos: bool = True, error: type[ValueError] = ValueError
) -> None:
    """Refuse latents without a picture plane, and those of several packed parts, such as a video with its sound.

    Args:
        run: whose noise is shaped as the latent.
        needs: begins the sentence, such as "Editing needs a latent of a picture or a video".
        instead: ends it: what to do.
        videos: whether latents of videos are read too.
        error: what is raised.

    Raises:
        ValueError: a latent of another kind.
    """
    if run.noise.ndim not in ((PICTURES, VIDEOS) if videos else (PICTURES,)) or run.parts > 1:
        raise error(f"{needs}; found one of shape {tuple(run.noise.shape)} in {run.parts} parts. {instead}.")


def warn_of_plain_prompts(run: Run, node: str, without: str) -> None:
    """Say that a run goes on without a node's work, because only its model reached the sampler."""
    run.warn(
        f"The model comes from {node}, but the prompts do not; sampling without {without}. Connect its positive and "
        "negative outputs to the sampler too."
    )


def warn_of_idle(run: Run, node: str, setting: str, first: float, last: float) -> None:
    """Say that a run has no step in a node's share of the schedule, as a second pass at a low denoise.

    A run that goes on where another stopped says nothing: the node's share was in that one.

    Args:
        run: before it begins.
        node: its name.
        setting: of the node, whose value decides, such as "end_at".
        first: highest noise level at which the node works.
        last: lowest.
    """
    if run.goes_on or run.reaches(first, last):
        return
    run.warn(
        f"{node} changes nothing in this run: its share of the schedule ({setting}) has none of the run's noise levels "
        f"({float(run.sigmas[0]):.4g} to {float(run.sigmas[-1]):.4g}), as in a second pass at a low denoise. Raise the "
        f"run's denoise or change {setting}; or connect this sampler to what goes into {node}, if that is meant."
    )


def check_one_gpu(run: Run, method: str) -> None:
    """Refuse runs that ComfyUI shares out among several GPUs, whose threads would meet in the state of one run.

    Raises:
        ValueError: it does.
    """
    if run.options.get("multigpu_clones"):
        raise ValueError(f"{method} does not run on several GPUs at once. Remove the multi-GPU node.")


def check_canvas(noise: Tensor, height: int, width: int) -> None:
    """Refuse a latent (... h w) of another shape than the layout's canvas of so many pixels.

    Raises:
        LayoutError: it has another aspect ratio.
    """
    rows, columns = noise.shape[-2:]
    if not is_same_aspect(rows, columns, height, width):
        raise LayoutError(
            f"The latent is {columns} x {rows} cells, which is not the shape of the layout's canvas "
            f"({width} x {height} pixels). Give both the same width and height."
        )
