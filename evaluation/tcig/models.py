"""How good TCIG's embedded models are by themselves, on held-out scenes: the VQGAN and the two specialists."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from diffusers import VQModel

from ...core.scores.metrics import mean_class_iou
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.vqgan_files import load_vqgan
from ...sticker_world.checkpoint.probe import held_out_scenes, pictures
from ...sticker_world.readers.segmenter import PARTS, places_of
from ...sticker_world.shipped import SPECIALIST_FOLDERS, VQGAN_FOLDER
from ...sticker_world.tcig.vqgan import vqgan_psnr
from ...sticker_world.world.scene import Scene
from ..judging.yardsticks import to_images
from ..result_rows import measure

SCENES_WANTED = 128


def model_measures(
    vqgan: Path = VQGAN_FOLDER,
    specialists: Mapping[str, Path] = SPECIALIST_FOLDERS,
    scenes_wanted: int = SCENES_WANTED,
) -> list[dict]:
    """Measures of result files.

    Args:
        vqgan: its folder.
        specialists: their folders by their parts of the training.
        scenes_wanted: held-out scenes to look at.
    """
    scenes = held_out_scenes(scenes_wanted)
    network: VQModel = load_vqgan(vqgan).network
    found = [
        measure("VQGAN, PSNR of whole pictures through its code book", vqgan_psnr(network, pictures(scenes)), "dB")
    ]
    for part, folder in specialists.items():
        name = f"{part.removeprefix('segmenter_')} segmenter, mean IoU"
        found.append(measure(name, specialist_iou(part, Segmenter.load(folder), scenes)))
    return found


def specialist_iou(part: str, segmenter: Segmenter, scenes: Sequence[Scene]) -> float | None:
    """Mean IoU over a specialist's classes, its background included.

    Args:
        part: a key of `segmenter.PARTS`, which says what it is to see.
        segmenter: that one.
        scenes: with exact labels; those whose captions leave the place open are left out where places count.
    """
    seen, places = PARTS[part], places_of([scene.caption for scene in scenes])
    usable = [row for row in range(len(scenes)) if not seen.places or places[row] >= 0]
    truth = seen.relabel(np.stack([scenes[row].labels() for row in usable]), places[usable])
    order = np.array([segmenter.classes.index(name) for name in seen.classes])
    found = segmenter.labels(to_images([scenes[row].image for row in usable])).numpy()
    return mean_class_iou(found, order[truth], len(segmenter.classes))
