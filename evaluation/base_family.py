"""The base family's own numbers: presence by the strict judge, segmenter, autoencoder, CLIP and word maps."""

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from ..core.scores.metrics import is_present
from ..sticker_world.checkpoint.probe import autoencoder_psnr, familiar_scenes, held_out_scenes, word_map_hits
from ..sticker_world.checkpoint.shipped_weights import load_autoencoder, load_diffusion, load_encoder
from ..sticker_world.shipped import CHECKPOINT_FILE
from ..sticker_world.world.dataset import TOKEN_GRID
from ..sticker_world.world.scene import Scene
from .image_lines import image_line
from .judging.calibration import CHOICES, clip_retrieval, segmenter_iou
from .judging.scoring import add_real_scenes, large_enough, spread
from .judging.yardsticks import Yardsticks, real_scenes
from .painter import Painter
from .records.lines import Key, PictureLine
from .records.pictures import PictureRecords
from .result_rows import measure
from .sets.sets import PresencePrompt, expected_areas, load_presence
from .summary.rows import summary_rows

HELD_OUT_SCENES = 256  # for the segmenter, the autoencoder, CLIP and the word maps
TIMESTEP = 500
TARGETS = {"segmenter": 0.92, "autoencoder": 30.0, "retrieval": 0.9, "maps": 0.95}
PLAIN, REAL = "plain", "real scenes"
COUNTS = (1, 2, 3)  # things in a prompt
Keep = Callable[[str, np.ndarray], None]


def presence_set(objects: int) -> str:
    """The set's name in result rows."""
    return f"presence_{objects}"


def all_present(yardsticks: Yardsticks, picture: np.ndarray, concepts: Sequence[str]) -> bool:
    """Whether the strict judge finds every concept in a picture made without a layout."""
    labels, areas = yardsticks.labels(picture), expected_areas(len(concepts))
    return all(is_present(labels, yardsticks.segmenter.class_of(name), areas[name]) for name in concepts)


def presence_line(
    yardsticks: Yardsticks,
    key: Key,
    wanted: PresencePrompt,
    picture: np.ndarray,
    *,
    with_features: bool = False,
    seconds: float | None = None,
    evaluations: int | None = None,
) -> PictureLine:
    """Judge a picture made without a layout.

    Args:
        yardsticks: the judges.
        key: of the picture.
        wanted: prompt and concepts.
        picture: uint8 (h w 3).
        with_features: whether KID will need them.
        seconds: that it took.
        evaluations: rows that the network evaluated for it, where they were counted.
    """
    return image_line(
        yardsticks,
        key,
        picture,
        wanted.prompt,
        with_features=with_features,
        objects=len(wanted.concepts),
        present=all_present(yardsticks, picture, wanted.concepts),
        seconds=seconds,
        evaluations=evaluations,
    )


def add_ceiling(yardsticks: Yardsticks, records: PictureRecords, objects: int, number: int) -> None:
    """What the judge says of real held-out scenes: nothing painted can be expected to pass more often.

    They have no KID, since they are what KID compares with.
    """
    keys = [(REAL, presence_set(objects), index, 0) for index in range(number)]
    if not records.has_all(keys):
        for key, scene in zip(keys, real_scenes(objects, number), strict=True):
            concepts = tuple(thing.concept for thing in scene.objects)
            wanted = PresencePrompt(scene.caption, concepts, scene.background, key[2])
            records.add([presence_line(yardsticks, key, wanted, scene.image)])


def evaluate(
    painter: Painter, yardsticks: Yardsticks, records: PictureRecords, prompts_wanted: int | None, keep: Keep
) -> dict[str, list[dict]]:
    """Paint the prompts whose pictures the records lack; rows and measures of results.

    Args:
        painter: of an `evaluation_server`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        prompts_wanted: of each number of things; None takes all.
        keep: called with every picture that is painted.
    """
    for objects in COUNTS:
        name, prompts = presence_set(objects), spread(load_presence(objects), prompts_wanted)
        with_features = large_enough(len(prompts))
        for prompt in tqdm(prompts, name, unit="picture"):
            key = (PLAIN, name, prompt.seed, 0)
            if key not in records:
                (picture,), seconds, rows = painter.paint_prompt(prompt.prompt, prompt.seed)
                given = {"with_features": with_features, "seconds": seconds, "evaluations": rows}
                records.add([presence_line(yardsticks, key, prompt, picture, **given)])
                keep(f"{name}_{prompt.seed}", picture)
        add_ceiling(yardsticks, records, objects, len(prompts))
        if with_features:
            add_real_scenes(yardsticks, records, objects)
    rows = summary_rows(records, [presence_set(objects) for objects in COUNTS], (PLAIN, REAL), by_tag=False)
    return {"provenance": [records.provenance], "rows": rows, "measures": measures(Yardsticks.shipped())}


def measures(family: Yardsticks, scenes_wanted: int = HELD_OUT_SCENES) -> list[dict]:
    """Every number of the base family that is not about painted pictures: name, value, unit, target.

    Args:
        family: the shipped segmenter and CLIP, of which this tells.
        scenes_wanted: held-out ones.
    """
    scenes = held_out_scenes(scenes_wanted)
    decibels = autoencoder_psnr(load_autoencoder(CHECKPOINT_FILE), scenes)
    maps = f"word maps peak inside, t = {TIMESTEP}, {TOKEN_GRID} cells"
    unseen, seen = word_map_shares(scenes, familiar_scenes(scenes_wanted))
    rows = [
        ("segmenter, mean IoU", segmenter_iou(family, scenes), "", TARGETS["segmenter"]),
        ("autoencoder, PSNR", decibels, "dB", TARGETS["autoencoder"]),
        (f"CLIP, retrieval 1 of {CHOICES}", clip_retrieval(family, scenes), "", TARGETS["retrieval"]),
        (maps, unseen, "", TARGETS["maps"]),
        (f"{maps}, combinations seen in training", seen, "", None),
    ]
    return [measure(*row) for row in rows]


def word_map_shares(*sets: Sequence[Scene]) -> list[float]:
    """Share of nouns whose attention map peaks inside the noun's visible mask, in the shipped checkpoint's U-Net."""
    model, encode = load_diffusion(CHECKPOINT_FILE), load_encoder(CHECKPOINT_FILE)
    counted = (word_map_hits(model, encode, list(scenes), timestep=TIMESTEP) for scenes in sets)
    return [hits / nouns for hits, nouns in counted]
