"""One measurement of `bench soft`: U-Net and local fuser in ComfyUI's own classes, random weights in float32.

`python commands/launcher.py evaluation.bench.soft_network SIZE [--small]` prints a line of JSON. ComfyUI reads its
options while it is imported, so everything of it is imported inside functions, after `start_comfyui`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.compose_and_conquer.config import FuserConfig
from ...core.compose_and_conquer.global_fuser import TOKENS
from ...sticker_world.compose_and_conquer.train import LOCAL
from .bench import measure_in_turns
from .guidance_network import UNET, fill, start_comfyui, timed
from .operations import count_operations

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...core.compose_and_conquer.comfy.files import CnC

TEXT_TOKENS = 77
CFG = 7.5
SIGMA, LAST_SIGMA = 10.0, 1.0


@dataclass(frozen=True)
class Size:
    """One network and how it is measured.

    Attributes:
        unet: ComfyUI's configuration.
        fuser: the local fuser's shapes.
        cells: rows and columns of the latent.
        steps: of a run; the more, the less everything around them counts.
        repeats: of a run.
    """

    unet: dict[str, Any]
    fuser: FuserConfig
    cells: int
    steps: int
    repeats: int


SIZES = {
    "sd15": Size(UNET, FuserConfig(), cells=64, steps=2, repeats=3),
    "embedded": Size(
        UNET
        | {
            "model_channels": 64,
            "num_res_blocks": [1, 1, 1],
            "channel_mult": [1, 2, 3],
            "context_dim": 128,
            "transformer_depth": [0, 1, 1],
            "transformer_depth_output": [0, 0, 1, 1, 1, 1],
        },
        LOCAL,
        cells=32,
        steps=20,
        repeats=9,
    ),
}
SMALL_STEPS, SMALL_REPEATS = 2, 1


def main(arguments: Sequence[str]) -> int:
    """Measure one size; the last line of the output is a JSON object: seconds of a step, and the fuser's share."""
    parser = argparse.ArgumentParser(prog="soft_network", description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    start_comfyui("pytorch")
    size = SIZES[options.size]
    steps, repeats = (SMALL_STEPS, SMALL_REPEATS) if options.small else (size.steps, size.repeats)
    runs = make_runs(size, steps)
    operations = {name: count_operations(runs[name]) for name in ("plain", "fuser")}
    seconds = measure_in_turns({name: timed(torch.inference_mode()(run)) for name, run in runs.items()}, repeats)
    found = {name: value / steps for name, value in seconds.items()}
    print(json.dumps(found | {"share": operations["fuser"] / operations["plain"] - 1}))
    return 0


@torch.no_grad()
def make_runs(size: Size, steps: int) -> dict[str, Callable[[], Tensor]]:
    """A sampler's run with CFG: plain, with soft guidance alone, and with the local fuser alone."""
    import comfy.sample
    import comfy.samplers

    from ...core.compose_and_conquer.comfy.compose import compose_depth
    from ...core.compose_and_conquer.comfy.exemplars import Exemplars
    from ...core.compose_and_conquer.depth_maps import Depths
    from ...core.soft_guidance.comfy.apply import apply_soft_guidance

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    model, cells, width = _model(size), size.cells, size.unet["context_dim"]
    prompts = [[[noise(1, TEXT_TOKENS, width), {}]] for _ in range(2)]
    looks = Exemplars(noise(1, TOKENS, width), noise(1, TOKENS, width))
    mask = torch.zeros(1, 8 * cells, 8 * cells)
    mask[:, 2 * cells : 6 * cells, 2 * cells : 6 * cells] = 1
    depths = [noise(1, 8 * cells, 8 * cells, 3).sigmoid() for _ in range(2)]
    composed = {
        "plain": (model, *prompts),
        "soft": apply_soft_guidance(model, *prompts, looks.regions(mask)),
        "fuser": compose_depth(model, *prompts, _fusers(size), Depths(*depths)),
    }
    sigmas, empty = torch.linspace(SIGMA, LAST_SIGMA, steps + 1), torch.zeros(1, 4, cells, cells)
    start, euler = noise(1, 4, cells, cells), comfy.samplers.sampler_object("euler")

    def run(model: "ModelPatcher", positive: list, negative: list) -> Callable[[], Tensor]:
        return lambda: comfy.sample.sample_custom(
            model, start, CFG, euler, sigmas, positive, negative, empty, disable_pbar=True
        )

    return {name: run(*prepared) for name, prepared in composed.items()}


def _model(size: Size) -> "ModelPatcher":
    import comfy.model_base
    import comfy.supported_models

    from ...core.comfy.sticker_world import CONTEXT, StickerWorld

    kind = StickerWorld if size.unet["context_dim"] == CONTEXT else comfy.supported_models.SD15
    model = comfy.model_base.BaseModel(kind(dict(size.unet)), comfy.model_base.ModelType.EPS, device="cpu")
    return _patcher(model, model.diffusion_model)


def _fusers(size: Size) -> "CnC":
    import comfy.ops

    from ...core.compose_and_conquer.comfy.files import CnC
    from ...core.compose_and_conquer.local_fuser import LocalFuser

    local = LocalFuser(size.fuser, comfy.ops.disable_weight_init)
    return CnC("random weights", _patcher(local, local), torch.float32, size.fuser, None)


def _patcher(module: torch.nn.Module, network: torch.nn.Module) -> "ModelPatcher":
    import comfy.model_patcher

    fill(network)
    module.eval().requires_grad_(False)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(module, load_device=cpu, offload_device=cpu)
