"""The measurement of `bench joint`: a small transformer of ComfyUI's Flux class, random weights in float32.

`python commands/launcher.py evaluation.bench.joint_network [--small]` prints a line of JSON. ComfyUI reads its options
while it is imported, so everything of it is imported inside functions, after `start_comfyui`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.attention.recorder import AttentionRecorder
from ...core.attention_guidance.energies import in_box_share
from ...core.attention_guidance.target import Target
from ...core.attention_guidance.transformer_maps import energy_of_blocks
from ...core.layout.masks import box_coverage
from .bench import measure_in_turns
from .guidance_network import BOXES, fill, start_comfyui, timed

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
    """

    width: int
    blocks: tuple[int, int]
    cells: int
    last: tuple[int, ...]

    @property
    def network(self) -> dict[str, Any]:
        """ComfyUI's configuration: heads of 64, as in Flux."""
        return {
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
SMALL = Size(128, (2, 2), 16, (2, 4))


def main(arguments: Sequence[str]) -> int:
    """Measure; the last line of the output is a JSON object."""
    parser = argparse.ArgumentParser(prog="joint_network", description=__doc__)
    parser.add_argument("--small", action="store_true")
    size = SMALL if parser.parse_args(arguments).small else FULL
    start_comfyui("pytorch")
    bench = _Bench(size)
    jobs = {"cfg": bench.evaluation(2), "row": bench.evaluation(1)}
    jobs |= {f"to {last}": bench.iteration(last) for last in size.last}
    seconds = measure_in_turns({name: timed(job) for name, job in jobs.items()}, REPEATS)
    iterations = {str(last): seconds[f"to {last}"] for last in size.last}
    measured = {"cfg": seconds["cfg"], "row": seconds["row"], "iterations": iterations, "blocks": sum(size.blocks)}
    print(json.dumps(measured))
    return 0


class _Bench:
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

    def iteration(self, last: int) -> Callable[[], Tensor]:
        """One iteration as the node does it, which reads two blocks."""
        from ...core.attention_guidance.comfy.gradients import AttentionGradient

        tokens = torch.tensor(sorted(token for tokens in BOXES.values() for token in tokens))
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
