"""One measurement of `bench guidance`: a U-Net of SD 1.5's size in ComfyUI's own classes, random weights in float32.

`python commands/launcher.py evaluation.bench.guidance_network BACKEND CASE [--small]` prints a line of JSON. ComfyUI
reads its options while it is imported, so everything of it is imported inside functions, after `start_comfyui`.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.attention.recorder import AttentionRecorder
from ...core.attention.sites import MIDDLE_AND_FIRST_UP
from ...core.attention_guidance.energies import in_box_share
from ...core.attention_guidance.target import Target
from ...core.layout.layout import Layout
from ...core.layout.masks import box_coverage
from ...core.layout.region import Region
from ..baselines.slow_guidance import SlowGuidance, SlowThing
from .bench import measure_in_turns

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

REPEATS = 3
TOKENS = 77
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_spatial_transformer": True,
    "context_dim": 768,
    "legacy": False,
    "dtype": torch.float32,
}
CELLS = 64
SMALL_CELLS, SMALL_CHANNELS = 32, 32
OPTIONS = {"pytorch": "use_pytorch_cross_attention", "sub-quadratic": "use_quad_cross_attention"}
# Of two phrases, with their tokens; of whole cells on every grid, because the plain loop rounds them.
BOXES = {(0.0, 0.0, 0.5, 0.5): (2,), (0.5, 0.25, 1.0, 1.0): (5, 6)}
SIGMA = 10.0


def main(arguments: Sequence[str]) -> int:
    """Measure one case; the last line of the output is a JSON object."""
    parser = argparse.ArgumentParser(prog="guidance_network", description=__doc__)
    parser.add_argument("backend", choices=OPTIONS)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    start_comfyui(options.backend)
    bench = _Bench(SMALL_CELLS if options.small else CELLS, SMALL_CHANNELS if options.small else UNET["model_channels"])
    print(json.dumps(CASES[options.case](bench)))
    return 0


def start_comfyui(backend: str) -> None:
    """Make ComfyUI importable, on the CPU and with one of the attention backends in `OPTIONS`."""
    sys.path.insert(0, os.environ["STAGECRAFT_COMFYUI"])
    # Like ComfyUI's main.py, before anything else is called `utils`
    importlib.import_module("utils.extra_config")
    from comfy.cli_args import args

    args.cpu = True
    setattr(args, OPTIONS[backend], True)


class _Bench:
    """The network, one noisy state, and the two ways to differentiate its attention."""

    def __init__(self, cells: int, channels: int) -> None:
        import comfy.model_base
        import comfy.model_management
        import comfy.model_patcher
        import comfy.sampler_helpers
        import comfy.samplers
        import comfy.supported_models

        config = comfy.supported_models.SD15({**UNET, "model_channels": channels})
        with torch.inference_mode():  # as ComfyUI's executor loads it
            self.model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
            fill(self.model.diffusion_model)
            cpu = torch.device("cpu")
            self.patcher = comfy.model_patcher.ModelPatcher(self.model, load_device=cpu, offload_device=cpu)
            comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
            self.patcher.pre_run()
        self.cells = cells
        self.texts = [torch.randn(1, TOKENS, UNET["context_dim"]) for _ in range(2)]
        self.sigma = torch.tensor([SIGMA])
        self.timestep = self.model.model_sampling.timestep(self.sigma).float()

    def state(self, cells: int) -> Tensor:
        """Noise at `SIGMA`."""
        return torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(0)) * SIGMA

    def entries(self, x: Tensor) -> list[list[dict[str, Any]]]:
        """The prompt's conditioning and the negative one's, as samplers prepare them."""
        import comfy.sampler_helpers
        import comfy.samplers

        named = {str(i): comfy.sampler_helpers.convert_cond([[text, {}]]) for i, text in enumerate(self.texts)}
        found = comfy.samplers.process_conds(self.model, x, named, x.device)
        return [found["0"], found["1"]]

    def cfg(self, cells: int) -> Callable[[], object]:
        """An evaluation of both prompts in one batch."""
        import comfy.samplers

        x = self.state(cells)
        entries = self.entries(x)
        return torch.inference_mode()(lambda: comfy.samplers.calc_cond_batch(self.model, entries, x, self.sigma, {}))

    def guidance(self, cells: int) -> Callable[[], Tensor]:
        """One iteration as the node does it; the first call learns where the last map is."""
        from ...core.attention_guidance.comfy.gradients import AttentionGradient

        x = self.state(cells)
        positive, _ = self.entries(x)
        tokens = torch.tensor(sorted(token for tokens in BOXES.values() for token in tokens))
        targets = [
            Target(tuple(tokens.tolist().index(token) for token in found), box_coverage(box, cells, cells))
            for box, found in BOXES.items()
        ]

        def recorder(_: dict[str, Any], known: frozenset) -> AttentionRecorder:
            return AttentionRecorder(MIDDLE_AND_FIRST_UP, (cells, cells), [tokens], known=known)

        gradient = AttentionGradient(self.model, positive, recorder, lambda _, maps: in_box_share(maps, targets))
        return torch.inference_mode()(lambda: gradient(x, self.sigma, {})[1])

    @cached_property
    def loop(self) -> SlowGuidance:
        """The plain loop, with its clone of the weights."""
        things = [SlowThing(list(tokens), [box]) for box, tokens in BOXES.items()]
        return SlowGuidance(self.model.diffusion_model, things, *self.texts, self.sigma, self.timestep)

    def reference(self, cells: int) -> Callable[[], Tensor]:
        """One iteration of the plain loop; the gradient without its factor."""
        x, sigma, loop = self.state(cells), self.sigma[0], self.loop
        return lambda: loop.iteration(x, sigma, self.timestep)[1] / loop.scale


def fill(module: nn.Module) -> None:
    """Give a module weights in place, which keep the size of what goes through it."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)


def timed(job: Callable[[], object]) -> Callable[[int], float]:
    """A job as `measure_in_turns` takes it: its seconds."""

    def seconds(_turn: int) -> float:
        start = time.perf_counter()
        job()
        return time.perf_counter() - start

    return seconds


def measure_time(bench: _Bench) -> dict[str, float]:
    """Seconds of an evaluation with CFG, of our iteration and of the plain loop's, in turns.

    Raises:
        RuntimeError: the two iterations do not give the same gradient.
    """
    ours, plain = bench.guidance(bench.cells), bench.reference(bench.cells)
    found, expected = ours(), plain()
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * expected.abs().max().item()):
        raise RuntimeError(
            f"The gradients differ by {float((found - expected).abs().max() / expected.abs().max()):.1e}."
        )
    jobs = {"cfg": bench.cfg(bench.cells), "iteration": ours, "reference": plain}
    return measure_in_turns({name: timed(job) for name, job in jobs.items()}, REPEATS)


def measure_memory(bench: _Bench, name: str) -> dict[str, float]:
    """Bytes by which the first iteration of a run raises the process's peak memory.

    Before it, a tiny one lets libraries set up. The plain loop's clone of the weights is not counted.

    Raises:
        RuntimeError: our iteration reads weights that lie elsewhere than the network's own.
    """
    make = getattr(bench, name)
    make(8)()
    iteration = make(bench.cells)
    before = peak_memory()
    if name == "guidance":
        with _uncopied_weights(bench.model.diffusion_model):
            iteration()
    else:
        iteration()
    return {"bytes": peak_memory() - before}


@contextmanager
def _uncopied_weights(network: nn.Module) -> Iterator[None]:
    """Check in every layer that computes, that its weight lies where the network's own did before."""
    own = {part: part.weight.data_ptr() for part in network.modules() if hasattr(part, "weight")}
    evaluated = set()

    def check(part: nn.Module, _inputs: object = None) -> None:
        evaluated.add(part)
        if part.weight.data_ptr() != own[part]:
            raise RuntimeError(f"A {type(part).__name__} computes with a copy of its weight.")

    handles = [part.register_forward_pre_hook(check) for part in own]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not evaluated:
        raise RuntimeError("No layer was evaluated.")
    for part in own:  # nor after it
        check(part)


def peak_memory() -> int:
    """Bytes that this process has held at most."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_outside(bench: _Bench) -> dict[str, float]:
    """Seconds of a sampler's first step, plain and with guidance for the last steps, in turns."""
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models_base

    from ...core.attention_guidance.comfy.guide import guide_attention
    from ...core.attention_guidance.settings import Guidance

    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    )
    with torch.inference_mode():
        fill(clip.cond_stage_model)
    side = 8 * bench.cells
    regions = tuple(Region(f"a {name}", box=box) for name, box in zip(("dog", "cat"), BOXES, strict=True))
    layout = Layout(side, side, "a dog and a cat", "", regions)
    sampler, (positive, negative) = comfy.samplers.sampler_object("euler"), ([[text, {}]] for text in bench.texts)
    sigmas, empty = torch.tensor([SIGMA, 0.9 * SIGMA]), torch.zeros(1, 4, bench.cells, bench.cells)
    with torch.inference_mode():
        models = {
            "plain": bench.patcher,
            "outside": guide_attention(bench.patcher, clip, layout, Guidance(start_at=0.9, end_at=1.0)),
        }

    def step(model: "ModelPatcher") -> Callable[[], Tensor]:
        return torch.inference_mode()(
            lambda: comfy.sample.sample_custom(
                model,
                bench.state(bench.cells) / SIGMA,
                7.5,
                sampler,
                sigmas,
                positive,
                negative,
                empty,
                disable_pbar=True,
            )
        )

    return measure_in_turns({name: timed(step(model)) for name, model in models.items()}, REPEATS)


CASES: dict[str, Callable[[_Bench], dict[str, float]]] = {
    "time": measure_time,
    "memory-guidance": lambda bench: measure_memory(bench, "guidance"),
    "memory-reference": lambda bench: measure_memory(bench, "reference"),
    "outside": measure_outside,
}
