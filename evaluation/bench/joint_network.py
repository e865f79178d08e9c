"""The measurement of `bench joint`: a small transformer of ComfyUI's Flux class, random weights in float32.

`python commands/launcher.py evaluation.bench.joint_network [--small] [--memory WHAT --cells N]` prints a line of JSON.
ComfyUI reads its options while it is imported, so everything of it is imported inside functions, after `start_comfyui`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from ...core.attention.recorder import AttentionRecorder
from ...core.attention.sites import ALL_BLOCKS, Site
from ...core.attention_guidance.energies import in_box_share
from ...core.attention_guidance.target import Target
from ...core.attention_guidance.transformer_maps import energy_of_blocks
from ...core.layout.masks import box_coverage
from .bench import measure_in_turns
from .guidance_network import BOXES, fill, peak_memory, start_comfyui
from .operations import count_operations

REPEATS = 3
TOKENS, WIDTH, POOLED = 77, 768, 768
SIGMA = 0.9
PATCH = 2


@dataclass(frozen=True)
class Size:
    """A network and what is asked of it.

    Attributes:
        width: of a token.
        blocks: of both kinds, double and single.
        cells: rows and columns of the latent; a token has `PATCH` x `PATCH` of them.
        last: blocks behind which an iteration ends, counted from 1.
        chosen: blocks that are watched, counted from 0; of twelve a fifth, as many as are found.
    """

    width: int
    blocks: tuple[int, int]
    cells: int
    last: tuple[int, ...]
    chosen: str = "3, 5"

    @property
    def network(self) -> dict[str, Any]:
        """ComfyUI's configuration: heads of 64, as in Flux."""
        from comfy.ldm.flux.model import FluxParams

        newer = {"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {}
        return newer | {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": POOLED,
            "context_in_dim": WIDTH,
            "hidden_size": self.width,
            "mlp_ratio": 4.0,
            "num_heads": self.width // 64,
            "depth": self.blocks[0],
            "depth_single_blocks": self.blocks[1],
            "axes_dim": [8, 28, 28],
            "theta": 10000,
            "patch_size": PATCH,
            "qkv_bias": True,
            "guidance_embed": False,
            "dtype": torch.float32,
        }


FULL = Size(1024, (4, 8), 64, (3, 5, 7, 12))  # of 1024 picture tokens
SMALL = Size(128, (2, 2), 16, (2, 4), "1, 2")
THIN = Size(256, (1, 1), 64, ())  # in which many tokens take memory, and little else does
MEMORY = ("maps", "bias", "merge")
BY_BIAS, BY_MERGE = 2**60, 0  # bytes of the largest mask
REGION_TOKENS = 8


def main(arguments: Sequence[str]) -> int:
    """Measure; the last line of the output is a JSON object."""
    parser = argparse.ArgumentParser(prog="joint_network", description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="JOB", help="time these, without counting operations")
    parser.add_argument("--memory", choices=MEMORY, help="what raises the process's peak memory, in place of speed")
    parser.add_argument("--cells", type=int, help="of the latent's sides, with --memory")
    options = parser.parse_args(arguments)
    start_comfyui("pytorch")
    if options.memory:
        bench = JointBench(replace(THIN, cells=options.cells))
        print(json.dumps(measure_memory(bench, options.memory)))
        return 0
    size = SMALL if options.small else FULL
    bench = JointBench(size)
    iterations = {str(last): bench.iteration(last) for last in size.last}
    jobs = {"cfg": bench.evaluation(2), "row": bench.evaluation(1), **iterations}
    counted = {name: 0 for name in jobs if name != "row"}
    jobs |= {"watched chosen": bench.watched(size.chosen), "watched all": bench.watched(ALL_BLOCKS)}
    jobs |= {"soft bias": bench.soft(BY_BIAS), "soft merge": bench.soft(BY_MERGE)}
    if options.only:
        jobs, counted = {name: jobs[name] for name in options.only}, {}
    clock = _Clock()

    def timed(name: str, job: Callable[[], object]) -> Callable[[int], float]:
        def seconds(turn: int) -> float:
            if turn == 0 and name in counted:  # the turn that warms up
                counted[name] = count_operations(job)
                return 0.0
            return clock.time(name, job)

        return seconds

    cpu = measure_in_turns({name: timed(name, job) for name, job in jobs.items()}, REPEATS)
    wall = {name: median(values[-REPEATS:]) for name, values in clock.wall.items()}
    measured = {"cpu": cpu, "wall": wall, "operations": counted}
    print(json.dumps(measured | {"last": size.last, "blocks": sum(size.blocks)}))
    return 0


class _Clock:
    """Times jobs by what the process has computed, which other programs on the machine change little, and by the wall.

    Attributes:
        wall: seconds by the wall, by job.
    """

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}

    def time(self, name: str, job: Callable[[], object]) -> float:
        """Seconds of all threads of the process."""
        wall, cpu = time.perf_counter(), time.process_time()
        job()
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        return time.process_time() - cpu


def measure_memory(bench: "JointBench", what: str) -> dict[str, float]:
    """Bytes by which an evaluation raises the process's peak memory over that of a plain one, and that maps keep.

    Before it, a tiny one lets libraries set up.
    """

    def job(bench: JointBench) -> Callable[[], object]:
        return bench.watched(ALL_BLOCKS) if what == "maps" else bench.soft(BY_BIAS if what == "bias" else BY_MERGE)

    job(JointBench(replace(THIN, cells=8)))()
    bench.evaluation(2)()
    measured = job(bench)
    before = peak_memory()
    kept = measured()
    found = {"peak": peak_memory() - before, "tokens": (bench.cells // PATCH) ** 2}
    if what == "maps":
        found["kept"] = sum(each.numel() * each.element_size() for each in kept.maps.values())
    return found


class JointBench:
    """The network and one noisy state."""

    def __init__(self, size: Size) -> None:
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models

        config = comfy.supported_models.Flux(size.network)
        with torch.inference_mode():  # as ComfyUI's executor loads it
            self.model = config.get_model({}, "", device="cpu")
            fill(self.model.diffusion_model)
            cpu = torch.device("cpu")
            self.patcher = comfy.model_patcher.ModelPatcher(self.model, load_device=cpu, offload_device=cpu)
            comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
            self.patcher.pre_run()
        self.cells = size.cells
        generator = torch.Generator().manual_seed(0)
        self.state = torch.randn(1, 16, size.cells, size.cells, generator=generator)
        self.texts = [torch.randn(1, TOKENS, WIDTH, generator=generator) for _ in range(2)]
        self.sigma = torch.tensor([SIGMA])

    def entries(self) -> list[list[dict[str, Any]]]:
        """The prompt's conditioning and the negative one's, as samplers prepare them."""
        import comfy.sampler_helpers
        import comfy.samplers

        named = {
            str(i): comfy.sampler_helpers.convert_cond([[text, {"pooled_output": torch.zeros(1, POOLED)}]])
            for i, text in enumerate(self.texts)
        }
        found = comfy.samplers.process_conds(self.model, self.state, named, self.state.device)
        return [found["0"], found["1"]]

    def evaluation(self, rows: int) -> Callable[[], object]:
        """An evaluation of the prompt, or of both in one batch."""
        import comfy.samplers

        entries = self.entries()[:rows]
        return torch.inference_mode()(
            lambda: comfy.samplers.calc_cond_batch(self.model, entries, self.state, self.sigma, {})
        )

    def watched(self, which: str) -> Callable[[], AttentionRecorder]:
        """The same with the maps of some tokens recorded for the prompt's row, as a step that is watched."""
        import comfy.samplers

        from ...core.attention.comfy.recording import recording

        entries = self.entries()
        (entry,) = entries[0]

        def evaluate() -> AttentionRecorder:
            recorder = AttentionRecorder(which, (self.cells, self.cells), [_tokens()], keep=_mean_over_heads)
            options = recording({}, {entry["uuid"]: recorder})
            comfy.samplers.calc_cond_batch(self.model, entries, self.state, self.sigma, options)
            if not recorder.maps:
                raise RuntimeError("No map was recorded.")
            return recorder

        return torch.inference_mode()(evaluate)

    def soft(self, largest_bias: int) -> Callable[[], object]:
        """The same with soft guidance: four regions, a quarter of the picture each, on the prompt."""
        import comfy.conds
        import comfy.patcher_extension
        import comfy.samplers

        from ...core.soft_guidance.comfy.memory import WRAPPER, Memory
        from ...core.soft_guidance.comfy.run import SoftRun
        from ...core.soft_guidance.comfy.tokens import RegionTokens
        from ...core.soft_guidance.soft_guidance import AREA

        generator = torch.Generator().manual_seed(1)
        masks = [box_coverage((x, y, x + 0.5, y + 0.5), self.cells, self.cells) for y in (0, 0.5) for x in (0, 0.5)]
        regions = [
            RegionTokens(torch.randn(1, REGION_TOKENS, WIDTH, generator=generator), mask[None], weight=2.0)
            for mask in masks
        ]
        entries = self.entries()
        entries[0][0]["model_conds"][WRAPPER] = comfy.conds.CONDConstant(tuple((each, AREA) for each in regions))
        options, run = {}, SoftRun(Memory(largest_bias))
        kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
        comfy.patcher_extension.add_wrapper_with_key(kind, WRAPPER, run.evaluate, options, is_model_options=True)
        return torch.inference_mode()(
            lambda: comfy.samplers.calc_cond_batch(self.model, entries, self.state, self.sigma, options)
        )

    def iteration(self, last: int) -> Callable[[], Tensor]:
        """One iteration as the node does it, which reads two blocks."""
        from ...core.attention_guidance.comfy.gradients import AttentionGradient

        tokens = _tokens()
        targets = [
            Target(tuple(tokens.tolist().index(token) for token in found), box_coverage(box, self.cells, self.cells))
            for box, found in BOXES.items()
        ]
        which = f"{last - 2}-{last - 1}"

        def recorder(_: dict[str, Any], known: frozenset) -> AttentionRecorder:
            return AttentionRecorder(which, (self.cells, self.cells), [tokens], known=known)

        def measure(_: dict[str, Any], maps: dict) -> Tensor:
            return energy_of_blocks(lambda maps: in_box_share(maps, targets), maps)

        gradient = AttentionGradient(self.model, self.entries()[0], recorder, measure)
        return torch.inference_mode()(lambda: gradient(self.state, self.sigma, {})[1])


def _tokens() -> Tensor:
    """That are asked for."""
    return torch.tensor(sorted(token for tokens in BOXES.values() for token in tokens))


def _mean_over_heads(_: Site, found: Tensor) -> Tensor:
    return reduce(found, "b heads n m -> b 1 n m", "mean")
