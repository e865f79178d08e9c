"""`python stage.py train [PART ...]`: (re)trains the embedded family."""

import argparse
import os
from pathlib import Path

import torch

from .pipeline import PARTS, Workshop

CPU_STEPS = {"autoencoder": 4000, "decoder": 6000, "diffusion": 12000, "clip": 6000, "segmenter": 6000}
GPU_STEPS = {"autoencoder": 30000, "decoder": 10000, "diffusion": 120000, "clip": 20000, "segmenter": 20000}


def main(argv: list[str]) -> None:
    """Train the named parts, or all of them, and write the shipped files."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        prog="stage.py train",
        description="(Re)trains the embedded Sticker World models. Resumable: run it again after an interruption.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all of them if none is named"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where states and drawn scenes are kept (default: the cache)"
    )
    parser.add_argument("--scenes", type=int, default=100_000 if cuda else 30_000, help="training scenes to draw")
    parser.add_argument("--steps", type=int, default=None, help="length of the schedule, for every named part")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    options = parser.parse_args(argv)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part '{unknown[0]}'; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    steps = dict(GPU_STEPS if cuda else CPU_STEPS)
    if options.steps is not None:
        steps = dict.fromkeys(steps, options.steps)
    folder = options.folder or _default_folder()
    shop = Workshop(folder, options.scenes, steps)
    for part in options.parts or PARTS:
        PARTS[part](shop)


def _default_folder() -> Path:
    """The training folder inside the cache that `stage.py` passes on."""
    return Path(os.environ.get("STAGECRAFT_CACHE_FOLDER", Path.cwd() / "stage_output")) / "training"
