"""`python stage.py train [PART ...]`: (re)trains the embedded family, or CnC's fusers on a user's own pictures."""

import argparse
import math
import os
from pathlib import Path

import torch

from ..commands.environment import current_environment
from .checkpoint.diffusion import BATCH as DIFFUSION_BATCH
from .checkpoint.transformer_training import BATCH as TRANSFORMER_BATCH
from .looks.drawing import LOOKS
from .own_settings import BATCH, EPOCHS, LAYER_LEARNING_RATE, LEARNING_RATE, SIZE, OwnLayers, OwnPictures
from .pipeline import BASELINES, CNC_BITS, FURTHER, LAYER_BITS, PARTS, Workshop
from .training.loop import training_folder

# part -> the length of its schedule on a CPU and on a GPU
STEPS = {
    "autoencoder": (4000, 30000),
    "decoder": (6000, 10000),
    "diffusion": (12000, 120000),
    "transformer": (14000, 140000),
    "clip": (6000, 20000),
    "segmenter": (6000, 20000),
    "vqgan": (4500, 40000),
    "segmenter_animals": (5500, 15000),
    "segmenter_things": (5000, 20000),
    "cnc_local": (5000, 40000),
    "cnc_global": (3000, 20000),
    "cnc_joint": (2000, 10000),
    "cnc_single": (5000, 40000),
    "lora": (800, 4000),
    "t2l_autoencoder": (5000, 40000),
    "t2l_autoencoder_plain": (5000, 40000),
    "t2l_layers": (3500, 60000),
    "t2l_two": (3500, 60000),
    "t2l_two_plain": (3500, 60000),
    "t2l_stacked": (3500, 60000),
    "t2l_single": (3500, 60000),
}

SAMPLES_PER_STEP = {"diffusion": DIFFUSION_BATCH, "transformer": TRANSFORMER_BATCH}
OWN_PAGE = "web/docs/training_on_your_pictures.md"
LAYERS_PAGE = "web/docs/training_on_your_layers.md"
TEXT2LAYER = "text2layer"
GROUPS = {TEXT2LAYER: ("t2l_autoencoder", "t2l_layers", "t2l_export")}  # names that stand for several parts


def main(argv: list[str]) -> None:
    """Train the named parts, or all of them, and write the shipped files."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        prog="stage.py train",
        description="(Re)trains the embedded Sticker World models, or with --data Compose and Conquer's fusers or "
        "Text2Layer for a checkpoint of yours. Resumable: run it again after an interruption.",
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"any of {', '.join(PARTS)}; all but {', '.join(BASELINES)} if none is named; {TEXT2LAYER} for "
        f"{', '.join(GROUPS[TEXT2LAYER])}",
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where states and drawn scenes are kept (default: the cache)"
    )
    parser.add_argument("--scenes", type=int, default=100_000 if cuda else 30_000, help="training scenes to draw")
    parser.add_argument("--steps", type=int, default=None, help="length of the schedule, for every named part")
    parser.add_argument(
        "--samples",
        type=int,
        default=None,
        help=f"length of the schedule of {' or '.join(SAMPLES_PER_STEP)} in samples, instead of steps",
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        choices=["shipped"],
        default=None,
        help=f"weights that {' or '.join(FURTHER)} goes on from: the shipped file's (default: none, it learns anew)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument(
        "--look",
        action="append",
        default=[],
        choices=list(LOOKS),
        help="whose LoRA lora and lora_export make (default: all)",
    )
    export = parser.add_argument_group("cnc_export, t2l_export")
    export.add_argument(
        "--fusers",
        action="append",
        default=[],
        choices=list(EPOCHS),
        help="stage that cnc_export writes, or two of them (default: the latest that there is)",
    )
    export.add_argument(
        "--bits",
        type=int,
        default=None,
        choices=[4, 5, 6, 7, 8, 16],
        help=f"of a large weight in the file; 16: half precision (default: {CNC_BITS}, of t2l_export {LAYER_BITS})",
    )
    own = parser.add_argument_group(
        "your own pictures", f"for {', '.join(EPOCHS)}, see {OWN_PAGE}; or for {TEXT2LAYER}, see {LAYERS_PAGE}"
    )
    own.add_argument(
        "--data", type=Path, metavar="FOLDER", help="pictures taken apart, and captions, as the pages describe them"
    )
    own.add_argument("--checkpoint", type=Path, metavar="FILE", help="SD 1.5 or a finetune, as ComfyUI opens it")
    own.add_argument(
        "--clip-vision",
        type=Path,
        metavar="FOLDER",
        help="CLIP in the Hugging Face layout, for looks; for SD 1.5 clip-vit-large-patch14",
    )
    own.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="file to go on from: a CnC file, such as cnc_v1.ckpt; a Text2Layer file",
    )
    own.add_argument("--lpips", type=Path, metavar="FILE", help=f"weights of LPIPS with VGG, for {TEXT2LAYER}")
    own.add_argument("--size", type=int, default=SIZE, help=f"pixels of the pictures' sides (default: {SIZE})")
    own.add_argument("--batch", type=int, default=BATCH, help=f"pictures in a step (default: {BATCH})")
    own.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        help=f"after the warm-up (default: {LEARNING_RATE}, for {TEXT2LAYER} {LAYER_LEARNING_RATE})",
    )
    options = parser.parse_args(argv)
    if options.start_from and (len(options.parts) != 1 or options.parts[0] not in FURTHER):
        parser.error(f"--from is for one part, {' or '.join(FURTHER)}: python stage.py train diffusion --from shipped")
    if options.samples and (len(options.parts) != 1 or options.parts[0] not in SAMPLES_PER_STEP):
        parser.error(f"--samples is for one part, {' or '.join(SAMPLES_PER_STEP)}: python stage.py train diffusion")
    if unknown := [part for part in options.parts if part not in PARTS and part not in GROUPS]:
        parser.error(f"unknown part '{unknown[0]}'; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    if options.data is not None:
        _train_own(parser, options)
        return
    if options.checkpoint or options.start or options.clip_vision or options.lpips:
        parser.error(
            "--checkpoint, --clip-vision, --start and --lpips are for your own pictures; name their folder with --data"
        )
    steps = {part: on_gpu if cuda else on_cpu for part, (on_cpu, on_gpu) in STEPS.items()}
    if options.steps is not None:
        steps = dict.fromkeys(steps, options.steps)
    if options.samples is not None:
        (part,) = options.parts
        steps[part] = math.ceil(options.samples / SAMPLES_PER_STEP[part])
    folder = options.folder or training_folder()
    bits = None if options.bits == 16 else options.bits
    packed = {} if options.bits is None else {"bits": bits, "layer_bits": bits}
    if options.look:
        packed["looks"] = tuple(options.look)
    shop = Workshop(
        folder, options.scenes, steps, tuple(options.fusers), from_shipped=options.start_from == "shipped", **packed
    )
    named = [each for part in options.parts for each in GROUPS.get(part, (part,))]
    for part in named or [part for part in PARTS if part not in BASELINES]:
        PARTS[part](shop)


def _train_own(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    layers = options.parts == [TEXT2LAYER]
    if wrong := [] if layers else [part for part in options.parts if part not in EPOCHS]:
        parser.error(f"--data is for {', '.join(EPOCHS)}, or for {TEXT2LAYER} alone, not for {wrong[0]}")
    if options.checkpoint is None:
        parser.error("--data needs --checkpoint, the file that is to be trained for")
    if layers and options.clip_vision:
        parser.error(f"--clip-vision is for {', '.join(EPOCHS)}; {TEXT2LAYER} has no use for it")
    if not layers and options.lpips:
        parser.error(f"--lpips is for {TEXT2LAYER}; {', '.join(EPOCHS)} have no use for it")
    for path in (options.data, options.checkpoint, options.start, options.clip_vision, options.lpips):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    from ..core.comfy.library import use_comfyui

    use_comfyui(current_environment().comfyui)
    try:
        made = _own_layers(options) if layers else _own_pictures(options)
    except ValueError as error:
        raise SystemExit(f"stage.py train: {error}") from error
    kind = TEXT2LAYER if layers else "cnc"
    for path in made:
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}  (for ComfyUI's models/{kind})")


def _own_layers(options: argparse.Namespace) -> list[Path]:
    from .text2layer.own_layers import train_own_layers

    settings = OwnLayers(
        data=options.data.resolve(),
        checkpoint=options.checkpoint.resolve(),
        folder=options.folder or options.data / "training",
        size=options.size,
        batch=options.batch,
        steps=options.steps,
        learning_rate=options.learning_rate or LAYER_LEARNING_RATE,
        start=options.start,
        lpips=options.lpips,
    )
    return [train_own_layers(settings)]


def _own_pictures(options: argparse.Namespace) -> list[Path]:
    from .compose_and_conquer.own_pictures import train_own_pictures

    settings = OwnPictures(
        data=options.data.resolve(),
        checkpoint=options.checkpoint.resolve(),
        folder=options.folder or options.data / "training",
        clip_vision=options.clip_vision,
        size=options.size,
        batch=options.batch,
        steps=options.steps,
        learning_rate=options.learning_rate or LEARNING_RATE,
        start=options.start,
    )
    return train_own_pictures(options.parts or list(EPOCHS), settings)
