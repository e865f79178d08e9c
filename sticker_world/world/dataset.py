"""The training set on disk: many scenes drawn once, kept as memory-mapped arrays in the training folder."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .concepts import BACKGROUND_NAMES, CANVAS, CONCEPT_NAMES
from .scene import combination, make_scene

TRAINING_SEED = 20_260
MOST_OBJECTS = 3
TOKEN_GRID = 16  # cells per side of the attention maps that training supervises
_CHUNK = 250


@dataclass(frozen=True)
class Scenes:
    """Memory-mapped scenes.

    Attributes:
        images: uint8 (n h w 3).
        labels: uint8 (n h w), 0 background, else 1 + concept index, visible parts only.
        concepts: int64 (n 3), concept index or -1, painter's order.
        masks: uint8 (n 3 16 16), share 0..255 of each cell that the object visibly covers.
        captions: n strings.
    """

    images: np.ndarray
    labels: np.ndarray
    concepts: np.ndarray
    masks: np.ndarray
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def _draw_chunk(seed: int, held_out: bool | None, start: int, stop: int) -> tuple:
    images, labels, captions = [], [], []
    concepts = np.full((stop - start, MOST_OBJECTS), -1, np.int64)
    masks = np.zeros((stop - start, MOST_OBJECTS, TOKEN_GRID, TOKEN_GRID), np.uint8)
    cell = CANVAS // TOKEN_GRID
    for row, index in enumerate(range(start, stop)):
        scene = make_scene(seed, index, held_out=held_out)
        images.append(scene.image)
        labels.append(scene.labels())
        captions.append(scene.caption)
        for k, thing in enumerate(scene.objects):
            concepts[row, k] = CONCEPT_NAMES.index(thing.concept)
            share = thing.visible.reshape(TOKEN_GRID, cell, TOKEN_GRID, cell).mean((1, 3))
            masks[row, k] = np.round(share * 255)
    return start, stop, np.stack(images), np.stack(labels), concepts, masks, captions


def open_scenes(folder: Path, number: int, seed: int = TRAINING_SEED, held_out: bool | None = False) -> Scenes:
    """Open the training scenes in `folder`, drawing them first if they are not there (about 150 a second).

    Args:
        folder: theirs alone.
        number: how many.
        seed: of the series, see `make_scene`.
        held_out: which combinations, see `make_scene`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"captions-{number}.json"
    shapes = {
        "images": ((number, CANVAS, CANVAS, 3), np.uint8),
        "labels": ((number, CANVAS, CANVAS), np.uint8),
        "concepts": ((number, MOST_OBJECTS), np.int64),
        "masks": ((number, MOST_OBJECTS, TOKEN_GRID, TOKEN_GRID), np.uint8),
    }
    paths = {name: folder / f"{name}-{number}.npy" for name in shapes}
    if not done.exists():
        arrays = {
            name: np.lib.format.open_memmap(paths[name], "w+", dtype, shape) for name, (shape, dtype) in shapes.items()
        }
        captions = [""] * number
        starts = range(0, number, _CHUNK)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            jobs = pool.map(partial(_draw_chunk, seed, held_out), starts, [min(s + _CHUNK, number) for s in starts])
            for start, stop, *columns, texts in tqdm(jobs, "scenes", len(starts)):
                for array, column in zip(arrays.values(), columns, strict=True):
                    array[start:stop] = column
                captions[start:stop] = texts
        for array in arrays.values():
            array.flush()
        done.write_text(json.dumps(captions))
    opened = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    return Scenes(captions=json.loads(done.read_text()), **opened)


def backgrounds_of(number: int) -> np.ndarray:
    """Index of each training scene's background, int64 (n)."""
    return np.array([BACKGROUND_NAMES.index(combination(TRAINING_SEED, index)[1]) for index in range(number)])
