"""The judging CLIP: another size than the shipped one, other scenes of any combination, other first weights."""

from pathlib import Path

from torch import Tensor

from ....sticker_world.readers.clip import Shape, train_clip
from ....sticker_world.world.dataset import Scenes

NAME = "judge_clip"
SHAPE = Shape(size=128, patch=16, width=112, layers=4, text_layers=3, heads=4, series=7_321, seed=7_322, name=NAME)


def train_judge(scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train it as the shipped one was; returns the averaged weights."""
    return train_clip(scenes, folder, steps, SHAPE)
