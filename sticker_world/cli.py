"""`python stage.py train [PART ...]`: (re)trains the embedded family, or CnC's fusers on a user's own pictures."""

import argparse
import os
from pathlib import Path

import torch

from ..commands.environment import current_environment
from .own_settings import BATCH, EPOCHS, LEARNING_RATE, SIZE, OwnPictures
from .pipeline import BASELINES, CNC_BITS, PARTS, Workshop

CPU_STEPS = {
    "autoencoder": 4000, "decoder": 6000, "diffusion": 12000, "clip": 6000, "segmenter": 6000,
    "cnc_local": 5000, "cnc_global": 3000, "cnc_joint": 2000, "cnc_single": 5000,
}  # fmt: skip
GPU_STEPS = {
    "autoencoder": 30000, "decoder": 10000, "diffusion": 120000, "clip": 20000, "segmenter": 20000,
    "cnc_local": 40000, "cnc_global": 20000, "cnc_joint": 10000, "cnc_single": 40000,
}  # fmt: skip

OWN_PAGE = "web/docs/training_on_your_pictures.md"


def main(argv: list[str]) -> None:
    """Train the named parts, or all of them, and write the shipped files."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        prog="stage.py train",
        description="(Re)trains the embedded Sticker World models, or with --data Compose and Conquer's fusers for a "
        "checkpoint of yours. Resumable: run it again after an interruption.",
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"any of {', '.join(PARTS)}; all but {', '.join(BASELINES)} if none is named",
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where states and drawn scenes are kept (default: the cache)"
    )
    parser.add_argument("--scenes", type=int, default=100_000 if cuda else 30_000, help="training scenes to draw")
    parser.add_argument("--steps", type=int, default=None, help="length of the schedule, for every named part")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    export = parser.add_argument_group("cnc_export")
    export.add_argument(
        "--fusers",
        action="append",
        default=[],
        choices=list(EPOCHS),
        help="stage to export, or two of them (default: the latest that there is)",
    )
    export.add_argument(
        "--bits",
        type=int,
        default=CNC_BITS,
        choices=[4, 5, 6, 7, 8, 16],
        help=f"of a large weight in the file; 16: half precision (default: {CNC_BITS})",
    )
    own = parser.add_argument_group("your own pictures", f"for {', '.join(EPOCHS)}; see {OWN_PAGE}")
    own.add_argument("--data", type=Path, metavar="FOLDER", help="pictures, captions, masks, backgrounds and depths")
    own.add_argument("--checkpoint", type=Path, metavar="FILE", help="SD 1.5 or a finetune, as ComfyUI opens it")
    own.add_argument(
        "--clip-vision",
        type=Path,
        metavar="FOLDER",
        help="CLIP in the Hugging Face layout, for looks; for SD 1.5 clip-vit-large-patch14",
    )
    own.add_argument("--start", type=Path, metavar="FILE", help="CnC file to go on from, such as a converted cnc_v1")
    own.add_argument("--size", type=int, default=SIZE, help=f"pixels of the pictures' sides (default: {SIZE})")
    own.add_argument("--batch", type=int, default=BATCH, help=f"pictures in a step (default: {BATCH})")
    own.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help=f"after the warm-up (default: {LEARNING_RATE})"
    )
    options = parser.parse_args(argv)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part '{unknown[0]}'; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    if options.data is not None:
        _train_own_pictures(parser, options)
        return
    if options.checkpoint or options.start or options.clip_vision:
        parser.error("--checkpoint, --clip-vision and --start are for your own pictures; name their folder with --data")
    steps = dict(GPU_STEPS if cuda else CPU_STEPS)
    if options.steps is not None:
        steps = dict.fromkeys(steps, options.steps)
    folder = options.folder or _default_folder()
    bits = None if options.bits == 16 else options.bits
    shop = Workshop(folder, options.scenes, steps, tuple(options.fusers), bits)
    for part in options.parts or [part for part in PARTS if part not in BASELINES]:
        PARTS[part](shop)


def _train_own_pictures(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if wrong := [part for part in options.parts if part not in EPOCHS]:
        parser.error(f"--data is for {', '.join(EPOCHS)}, not for {wrong[0]}")
    if options.checkpoint is None:
        parser.error("--data needs --checkpoint, the file that the fusers are to be for")
    for path in (options.data, options.checkpoint, options.start, options.clip_vision):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    from ..core.host.comfy_library import use_comfyui

    use_comfyui(current_environment().comfyui)
    from .own_pictures import train_own_pictures

    settings = OwnPictures(
        data=options.data.resolve(),
        checkpoint=options.checkpoint.resolve(),
        folder=options.folder or options.data / "training",
        clip_vision=options.clip_vision,
        size=options.size,
        batch=options.batch,
        steps=options.steps,
        learning_rate=options.learning_rate,
        start=options.start,
    )
    try:
        made = train_own_pictures(options.parts or list(EPOCHS), settings)
    except ValueError as error:
        raise SystemExit(f"stage.py train: {error}") from error
    for path in made:
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}  (for ComfyUI's models/cnc)")


def _default_folder() -> Path:
    """The training folder inside the cache that `stage.py` passes on."""
    return Path(os.environ.get("STAGECRAFT_CACHE_FOLDER", Path.cwd() / "stage_output")) / "training"
