"""The base family's own numbers: presence by the strict judge, segmenter, autoencoder, CLIP and word maps."""

from collections.abc import Sequence

import numpy as np

from ..core.scores.metrics import is_present, mean_class_iou, mean_or_none, retrieval_accuracy
from ..sticker_world.checkpoint.probe import autoencoder_psnr, familiar_scenes, held_out_scenes, word_map_hits
from ..sticker_world.checkpoint.shipped_weights import load_autoencoder, load_diffusion, load_encoder
from ..sticker_world.shipped import CHECKPOINT_FILE
from ..sticker_world.world.concepts import CONCEPT_NAMES
from ..sticker_world.world.dataset import TOKEN_GRID
from ..sticker_world.world.scene import Scene
from .judging.yardsticks import Yardsticks, image_scores, real_scenes
from .result_rows import measure, result_row
from .sets.sets import expected_areas

HELD_OUT_SCENES = 256  # for the segmenter, the autoencoder, CLIP and the word maps
CHOICES = 32
TIMESTEP = 500
TARGETS = {"segmenter": 0.92, "autoencoder": 30.0, "retrieval": 0.9, "maps": 0.95}
REAL = "real scenes"


def presence_set(objects: int) -> str:
    """The set's name in result rows."""
    return f"presence_{objects}"


def all_present(yardsticks: Yardsticks, picture: np.ndarray, concepts: Sequence[str]) -> bool:
    """Whether the strict judge finds every concept in a picture made without a layout."""
    labels, areas = yardsticks.labels(picture), expected_areas(len(concepts))
    return all(is_present(labels, yardsticks.segmenter.class_of(name), areas[name]) for name in concepts)


def presence_row(
    yardsticks: Yardsticks,
    method: str,
    pictures: Sequence[np.ndarray],
    prompts: Sequence[str],
    concepts: Sequence[Sequence[str]],
    seconds: Sequence[float],
) -> dict:
    """Score pictures of prompts that all name the same number of concepts."""
    objects = len(concepts[0])
    present = [all_present(yardsticks, p, names) for p, names in zip(pictures, concepts, strict=True)]
    images = image_scores(yardsticks, yardsticks.image_features(pictures), prompts, objects)
    return result_row(
        method,
        presence_set(objects),
        images=images,
        seconds=seconds,
        pictures=len(pictures),
        presence=mean_or_none(present),
    )


def ceiling_row(yardsticks: Yardsticks, objects: int, number: int) -> dict:
    """What the judge says of real held-out scenes: nothing painted can be expected to pass more often."""
    scenes = real_scenes(objects, number)
    concepts = [[thing.concept for thing in scene.objects] for scene in scenes]
    captions = [scene.caption for scene in scenes]
    row = presence_row(yardsticks, REAL, [scene.image for scene in scenes], captions, concepts, ())
    return row | {"kid": None}  # they are what KID compares with


def measures(yardsticks: Yardsticks, scenes_wanted: int = HELD_OUT_SCENES) -> list[dict]:
    """Every number of the base family that is not about painted pictures: name, value, unit, target."""
    scenes = held_out_scenes(scenes_wanted)
    decibels = autoencoder_psnr(load_autoencoder(CHECKPOINT_FILE), scenes)
    maps = f"word maps peak inside, t = {TIMESTEP}, {TOKEN_GRID} cells"
    unseen, seen = word_map_shares(scenes, familiar_scenes(scenes_wanted))
    rows = [
        ("segmenter, mean IoU", segmenter_iou(yardsticks, scenes), "", TARGETS["segmenter"]),
        ("autoencoder, PSNR", decibels, "dB", TARGETS["autoencoder"]),
        (f"CLIP, retrieval 1 of {CHOICES}", clip_retrieval(yardsticks, scenes), "", TARGETS["retrieval"]),
        (maps, unseen, "", TARGETS["maps"]),
        (f"{maps}, combinations seen in training", seen, "", None),
    ]
    return [measure(*row) for row in rows]


def segmenter_iou(yardsticks: Yardsticks, scenes: Sequence[Scene]) -> float | None:
    """Mean IoU over background and concepts against the scenes' exact labels."""
    order = [0, *(yardsticks.segmenter.class_of(name) for name in CONCEPT_NAMES)]
    truth = np.array(order)[np.stack([scene.labels() for scene in scenes])]
    found = np.stack([yardsticks.labels(scene.image) for scene in scenes])
    return mean_class_iou(found, truth, len(yardsticks.segmenter.classes))


def clip_retrieval(yardsticks: Yardsticks, scenes: Sequence[Scene]) -> float | None:
    """How often a scene's own caption is the nearest of 32."""
    images = yardsticks.image_features([scene.image for scene in scenes])
    return retrieval_accuracy(images, yardsticks.text_features([scene.caption for scene in scenes]), CHOICES)


def word_map_shares(*sets: Sequence[Scene]) -> list[float]:
    """Share of nouns whose attention map peaks inside the noun's visible mask, in the shipped checkpoint's U-Net."""
    model, encode = load_diffusion(CHECKPOINT_FILE), load_encoder(CHECKPOINT_FILE)
    counted = (word_map_hits(model, encode, list(scenes), timestep=TIMESTEP) for scenes in sets)
    return [hits / nouns for hits, nouns in counted]
