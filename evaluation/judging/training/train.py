"""Makes the judges: `python commands/launcher.py evaluation.judging.training.train segmenter clip export`.

Each part goes on where it stopped; states and pictures lie in the training folder, which may be deleted afterwards.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ....commands.messages import SetupProblem
from ....sticker_world.readers.export import export_clip, write_segmenter
from ....sticker_world.training.loop import training_folder, weights_folder
from ....sticker_world.world.dataset import Scenes, open_scenes
from ..judges import CLIP_FOLDER, SEGMENTER_FOLDER
from . import clip, segmenter

SCENES, SCENES_SEED = 12_000, 7_320
STEPS = {"segmenter": 9_000, "clip": 3_200}


def _train_segmenter(folder: Path, steps: int) -> None:
    segmenter.train_segmenter(segmenter.open_pictures(folder), _scenes(folder), weights_folder(folder), steps)


def _train_clip(folder: Path, steps: int) -> None:
    clip.train_judge(_scenes(folder), weights_folder(folder), steps)


def _scenes(folder: Path) -> Scenes:
    """Scenes of any combination that nothing but judges is trained with, drawn first where they are missing."""
    return open_scenes(folder / "judge_scenes", SCENES, SCENES_SEED, held_out=None)


def _export(folder: Path) -> None:
    write_segmenter(segmenter.make_segmenter(), _average(folder, segmenter.NAME), SEGMENTER_FOLDER)
    export_clip(_average(folder, clip.NAME), CLIP_FOLDER, clip.SHAPE)


def _average(folder: Path, name: str) -> dict[str, Tensor]:
    path = weights_folder(folder) / f"{name}.safetensors"
    if not path.is_file():
        raise SetupProblem(f"There are no trained weights in {path}. Train the part first.")
    return load_file(path)


TRAINED: dict[str, Callable[[Path, int], None]] = {"segmenter": _train_segmenter, "clip": _train_clip}
EXPORT = "export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named parts in their order; returns the exit status.

    Raises:
        SetupProblem: something is to be exported that was not trained.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=[*TRAINED, EXPORT])
    parser.add_argument("--steps", type=int, help=f"length of the schedule; default: {STEPS}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--folder", type=Path, default=training_folder(), help="of pictures, states and weights")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for part, run in TRAINED.items():
        if part in options.parts:
            run(options.folder, options.steps or STEPS[part])
    if EXPORT in options.parts:
        _export(options.folder)
    return 0
