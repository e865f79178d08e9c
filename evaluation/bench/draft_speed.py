"""One measurement of `bench tcig`: the demo's draft, and its iterations beside a plain loop's, without ComfyUI.

`python commands/launcher.py evaluation.bench.draft_speed [--small]` prints a line of JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence

import torch
from diffusers import VQModel

from ...core.clip.clip_guide import load_clip
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.draft import CLIP_WEIGHT, FEW_ITERATIONS, SEGMENTER_NOISE, START_WEIGHT, DraftSettings, draft
from ...core.tcig.prompts import WeightedPrompt
from ...core.tcig.segmentation_loss import make_terms, region_overlaps
from ...core.tcig.starts import COLOURS, random_start, start_of
from ...core.tcig.vqgan import VQGAN
from ...core.tcig.vqgan_files import load_vqgan
from ...sticker_world.shipped import CLIP_FOLDER, SEGMENTER_FOLDER, VQGAN_FOLDER
from ..sets.sets import LAYOUT_SETS
from .bench import first_of_boxes, measure_in_turns
from .plain_draft import plain_draft

SIDE, SMALL_SIDE = 256, 64  # pixels
STEPS, REPEATS = 10, 5  # iterations of a run, and runs of each loop
SMALL_STEPS, SMALL_REPEATS = 2, 1


def main(arguments: Sequence[str]) -> int:
    """Measure; the last line of the output is a JSON object.

    It has the seconds of a whole draft, its mean mask IoU, and the iterations per second of our loop and of the plain
    one.
    """
    parser = argparse.ArgumentParser(prog="draft_speed", description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args(arguments).small
    side, steps, repeats = (SMALL_SIDE, SMALL_STEPS, SMALL_REPEATS) if small else (SIDE, STEPS, REPEATS)
    whole = SMALL_STEPS if small else FEW_ITERATIONS
    vqgan = small_vqgan() if small else load_vqgan(VQGAN_FOLDER)
    guide, segmenter = load_clip(CLIP_FOLDER), Segmenter.load(SEGMENTER_FOLDER)
    layout = first_of_boxes(LAYOUT_SETS[1]).layout  # of two things
    prompts = (WeightedPrompt(layout.prompt),)
    terms = make_terms(layout, [segmenter], [1.0], side, side)

    def start(seed: int) -> torch.Tensor:
        return random_start(vqgan, side, side, seed)

    few = DraftSettings(iterations=steps)
    jobs: dict[str, Callable[[int], float]] = {
        "ours": _timed(lambda turn: draft(vqgan, start(turn), guide, prompts, terms, few, seed=turn)),
        "plain": _timed(lambda turn: plain_draft(vqgan, start(turn), guide, prompts, terms, steps)),
    }
    seconds = measure_in_turns(jobs, repeats)
    found = {name: steps / value for name, value in seconds.items()}
    begin = time.perf_counter()
    colours, hold = start_of(layout, vqgan, COLOURS, None, (side, side), 0)
    settings = DraftSettings(
        iterations=whole, segmenter_noise=SEGMENTER_NOISE, clip_weight=CLIP_WEIGHT, start_weight=START_WEIGHT
    )
    result = draft(vqgan, colours, guide, prompts, terms, settings, seed=0, start_map=hold)
    found["seconds"] = time.perf_counter() - begin
    overlaps = region_overlaps(terms, result.picture)
    found["mask_iou"] = sum(overlaps.values()) / len(overlaps)
    print(json.dumps(found))
    return 0


def small_vqgan() -> VQGAN:
    """A small VQGAN with random weights, to see that everything runs."""
    network = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=4,
        num_vq_embeddings=32,
        norm_num_groups=4,
    )
    return VQGAN(network.eval().requires_grad_(False))


def _timed(run: Callable[[int], object]) -> Callable[[int], float]:
    def seconds(turn: int) -> float:
        begin = time.perf_counter()
        run(turn)
        return time.perf_counter() - begin

    return seconds
