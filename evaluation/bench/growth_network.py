"""One network of `bench growth`, with random weights.

`python commands/launcher.py evaluation.bench.growth_network NETWORK [--small] [--counts]` prints a line of JSON.

What a method has the network evaluate is seen on a run whose network evaluates nothing, and counted on meta tensors.
Methods that reach inside the network have a real one whose products give zeros. Their operations are a polynomial of
second degree in the network's width, since its products are of width times width, of width times something else, or of
neither; so three narrow networks say what a wide one needs.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from .growth import METHODS, Point, points
from .growth_runs import WIDTH, Call, Inside, Runs, rows_of
from .guidance_network import UNET, fill, peak_memory, start_comfyui
from .joint_network import FULL
from .live_memory import count_row
from .operations import count_operations

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

CHANNELS = {"sd15": 4, "flux": 16}
FULL_WIDTH = {"sd15": UNET["model_channels"], "flux": FULL.width}
NARROW = {"sd15": (32, 64, 96), "flux": (64, 128, 192)}
INSIDE = {"sd15": ("guidance", "soft_bias"), "flux": ("guidance", "soft_bias", "soft_merge")}
LARGEST_BIAS = 1024  # pixels: above, a transformer's mask of all pairs of tokens alone takes gigabytes
REPEATS = 3
TERA = 1e12
# Operations of what is timed, and of what is timed at another canvas: as much as about 20 minutes on two cores allow.
LARGEST_TIMED, LARGEST_TIMED_CANVAS = 1.7 * TERA, 10 * TERA
MEGABYTE = 1e6


def main(arguments: Sequence[str]) -> int:
    """Measure a network; the last line of the output is a JSON object."""
    parser = argparse.ArgumentParser(prog="growth_network", description=__doc__)
    parser.add_argument("network", choices=CHANNELS)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--counts", action="store_true", help="time nothing")
    options = parser.parse_args(arguments)
    start_comfyui("pytorch")
    print(json.dumps({"rows": Growth(options.network, options.small).rows(not options.counts)}))
    return 0


class Growth:
    """One network at every point."""

    def __init__(self, name: str, small: bool) -> None:
        self.name, self.small = name, small
        self.channels = CHANNELS[name]
        self.width = NARROW[name][1] if small else FULL_WIDTH[name]
        self.points = list(points(small))

    def rows(self, timed: bool) -> list[dict[str, object]]:
        """Count everything and time what is small enough."""
        runs = Runs(self.network(NARROW[self.name][0]), self.channels, WIDTH)
        inside = INSIDE[self.name]
        calls: dict[tuple[str, Point], list[Call]] = {}
        for _, _, point in self.points:
            for method in METHODS:
                if method not in ("guidance", "soft_bias", "soft_merge"):
                    calls[method, point] = runs.calls_of(method, point)
        cost = self._costs_of_calls({row for each in calls.values() for row in rows_of(each)})
        operations = self._inside(inside)
        seconds, memory = self._seconds(calls, cost, operations) if timed else ({}, {})
        found = []
        for axis, value, point in self.points:
            for method in METHODS:
                row = {"network": self.name, "axis": axis, "value": value, "method": method}
                if (method, point) in calls:
                    made = calls[method, point]
                    parts = rows_of(made)
                    row |= {
                        "evaluations": len(made),
                        "rows": sum(parts.values()),
                        "tflop": sum(number * cost[part][0] for part, number in parts.items()) / TERA,
                        "peak_mb": max(call.rows * cost[_row(call)][1] for call in made) / MEGABYTE,
                    }
                elif method in inside:
                    known = operations.get((method, point))
                    row |= {
                        "evaluations": 2 if method == "guidance" else 1,
                        "rows": 3 if method == "guidance" else 2,
                        "tflop": None if known is None else known / TERA,
                        "peak_mb": memory.get((method, point)),
                    }
                else:
                    continue
                row["seconds"] = seconds.get((method, point))
                found.append({key: round(each, 4) if isinstance(each, float) else each for key, each in row.items()})
        return found

    def network(self, width: int, device: str = "cpu") -> "ModelPatcher":
        """The network at a width, in ComfyUI's own classes, with weights unless it is on "meta"."""
        import comfy.model_base
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models

        where = torch.device(device)
        with torch.inference_mode():  # as ComfyUI's executor loads it
            if self.name == "sd15":
                config = comfy.supported_models.SD15({**UNET, "model_channels": width})
                model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device=where)
            else:
                config = comfy.supported_models.Flux(replace(FULL, width=width).network)
                model = config.get_model({}, "", device=where)
            patcher = comfy.model_patcher.ModelPatcher(model, load_device=where, offload_device=where)
            if device == "cpu":
                fill(model.diffusion_model)
                comfy.model_management.load_models_gpu([patcher], force_full_load=True)
                patcher.pre_run()
        return patcher

    def _costs_of_calls(self, kinds: set[Call]) -> dict[Call, tuple[int, int]]:
        """Operations and bytes of one row of each kind, counted on meta tensors."""
        network = self.network(self.width, "meta").model.diffusion_model.to("meta")
        return {
            kind: count_row(lambda kind=kind: self.evaluate(network, kind, "meta"))
            for kind in tqdm(sorted(kinds, key=lambda kind: kind.height * kind.width), self.name, unit="size")
        }

    def evaluate(self, network: torch.nn.Module, call: Call, device: str = "cpu") -> Tensor:
        """The network itself, as `call` says."""
        x = torch.zeros(call.rows, self.channels, call.height, call.width, device=device)
        t = torch.ones(call.rows, device=device)
        text = torch.zeros(call.rows, call.tokens, WIDTH, device=device)
        with torch.inference_mode():
            if self.name == "sd15":
                return network(x, t, context=text)
            return network(x, t, text, torch.zeros(call.rows, WIDTH, device=device))

    def _inside(self, methods: Sequence[str]) -> dict[tuple[str, Point], float]:
        """Operations at full width of methods that reach inside the network."""
        at = [
            (method, point)
            for method in methods
            for point in dict.fromkeys(point for _, _, point in self.points)
            if (self.name, method) != ("flux", "soft_bias") or point.canvas <= LARGEST_BIAS
        ]
        counted: dict[tuple[str, Point], list[int]] = {}
        widths = NARROW[self.name]
        for width in widths:
            steps = Inside(self.network(width), self.channels, WIDTH)
            if width == widths[0]:  # a method may try a kernel once in a process
                for method in methods:
                    steps.job(method, Point(canvas=64))()
            for method, point in tqdm(at, f"{self.name} {width}"):
                operations = count_operations(steps.job(method, point), unevaluated=True)
                counted.setdefault((method, point), []).append(operations)
        return {key: at_width(widths, values, self.width) for key, values in counted.items()}

    def _seconds(
        self,
        calls: dict[tuple[str, Point], list[Call]],
        cost: dict[Call, tuple[int, int]],
        operations: dict[tuple[str, Point], float],
    ) -> tuple[dict[tuple[str, Point], float], dict[tuple[str, Point], float]]:
        """Seconds of what is small enough, in turns, and peak memory in MB of the methods inside."""
        patcher = self.network(self.width)
        network, steps = patcher.model.diffusion_model, Inside(patcher, self.channels, WIDTH)
        largest = {point: LARGEST_TIMED_CANVAS if axis == "canvas" else LARGEST_TIMED for axis, _, point in self.points}
        jobs: dict[object, Callable[[], object]] = {}
        whole: dict[tuple[str, Point], list[Call]] = {}
        for (method, point), made in calls.items():
            if sum(call.rows * cost[_row(call)][0] for call in made) <= largest[point]:
                whole[method, point] = made
                jobs |= {call: lambda call=call: self.evaluate(network, call) for call in made}
        for (method, point), each in operations.items():
            if each <= largest[point]:
                jobs[method, point] = steps.job(method, point)
        times: dict[object, list[float]] = {key: [] for key in jobs}
        memory = {}
        for turn in range(REPEATS):
            for key, job in tqdm(jobs.items(), f"{self.name}, turn {turn + 1} of {REPEATS}"):
                before, start = peak_memory(), time.perf_counter()
                job()
                times[key].append(time.perf_counter() - start)
                if turn == 0 and isinstance(key, tuple) and peak_memory() > before:
                    memory[key] = (peak_memory() - before) / MEGABYTE
        found = {key: median(values) for key, values in times.items()}
        seconds = {key: found[key] for key in operations if key in found}
        return seconds | {key: sum(found[call] for call in made) for key, made in whole.items()}, memory


def _row(call: Call) -> Call:
    return Call(1, call.height, call.width, call.tokens)


def at_width(widths: Sequence[int], values: Sequence[float], width: int) -> float:
    """The polynomial through these values at another width (Lagrange)."""
    total = 0.0
    for i, value in enumerate(values):
        factor = 1.0
        for j, other in enumerate(widths):
            if j != i:
                factor *= (width - other) / (widths[i] - other)
        total += factor * value
    return total
