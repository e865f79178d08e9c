"""Real scenes taken apart, `python stage.py evaluate split`: Split Layers, cutting out, and what the VAE alone does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm import tqdm

from ...core.segmentation.segmenter import Segmenter
from ...sticker_world.shipped import SEGMENTER_FOLDER
from ...sticker_world.world.concepts import EMPTY_CAPTIONS
from ...sticker_world.world.scene import Scene, make_scene
from ..editing.graphs import encoded_and_decoded
from ..judging.yardsticks import Yardsticks
from ..painter import Painter, pictures_of
from ..records.lines import Key, picture_line
from ..records.pictures import PictureRecords
from ..sets.sets import exactly
from ..summary.compared import Compared
from ..summary.rows import summary_rows
from .measures import GREY, LEVELS, TakenApart, background_measures, layer_measures, true_layer
from .peeling import cut_out, split_scene

SPLIT, SET = "split", "split_scenes"
SPLIT_WORDS, CUT_OUT, VAE = "split_words", "cut_out", "vae"
METHODS = (SPLIT, SPLIT_WORDS, CUT_OUT, VAE)
PAIRS = ((SPLIT, CUT_OUT), (SPLIT_WORDS, CUT_OUT))
SCENES = 40
SERIES, TUNING_SERIES = 7_083, 7_084
MOST_OBJECTS = 3
LEAST_HIDDEN = 0.15  # of one thing, in scenes with more than one
Keep = Callable[[str, np.ndarray], None]


@dataclass(frozen=True)
class SplitScene:
    """A scene to take apart; it follows from its place in a series.

    Attributes:
        series: see `make_scene`.
        index: see `make_scene`.
    """

    series: int
    index: int

    @property
    def objects(self) -> int:
        """1, 2, 3, 1, ..."""
        return 1 + self.index % MOST_OBJECTS

    @property
    def seed(self) -> int:
        """Of the noise behind the nearest thing."""
        return self.series * 10_000 + 10 * self.index

    @cached_property
    def scene(self) -> Scene:
        """A held-out one; of several things one hides some of another."""
        hidden = LEAST_HIDDEN if self.objects > 1 else 0.0
        counts = exactly(self.objects)
        return make_scene(self.series, self.index, held_out=True, counts=counts, least_hidden=hidden)


def split_scenes(number: int | None, *, tuning: bool) -> list[SplitScene]:
    """The first scenes of a series; all for None."""
    return [SplitScene(TUNING_SERIES if tuning else SERIES, index) for index in range(number or SCENES)]


def evaluate(
    painter: Painter,
    yardsticks: Yardsticks,
    records: PictureRecords,
    *,
    layouts: int | None,
    tuning: bool,
    keep: Keep,
) -> dict[str, list[dict]]:
    """Take apart what the records lack, and compare it with what is true.

    Args:
        painter: of a server with `baselines`.
        yardsticks: nothing is judged here, since everything is known.
        records: that keep the pictures' measures.
        layouts: scenes; None for all.
        tuning: use other scenes.
        keep: is given a sheet of the layers of every picture, beside that of the true ones, and its name.
    """
    scenes = split_scenes(layouts, tuning=tuning)
    if not records.has_all(_key(name, each) for each in scenes for name in METHODS):
        painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    segmenter = Segmenter.load(SEGMENTER_FOLDER)
    for each in tqdm(scenes, SET, unit="picture"):
        for name in METHODS:
            if _key(name, each) not in records:
                measures, given, shown = _measured(painter, segmenter, each, name)
                records.add([picture_line(*_key(name, each), objects=each.objects, measures=measures, **given)])
                keep(f"{SET}_{each.seed}_{name}", shown)
    return results(records)


def _key(name: str, each: SplitScene) -> Key:
    return (name, SET, each.seed, 0)


def _measured(
    painter: Painter, segmenter: Segmenter, each: SplitScene, name: str
) -> tuple[dict[str, float | None], dict, np.ndarray]:
    """Measures, seconds and evaluations, and what is to be seen."""
    if name == VAE:
        result = painter.run(encoded_and_decoded(painter.upload(each.scene.backdrop)))
        (background,) = pictures_of(result)
        return background_measures(background / LEVELS, each.scene), {"seconds": result.seconds}, background
    if name == CUT_OUT:
        found, given = cut_out(segmenter, each.scene), {}
    else:
        behind = EMPTY_CAPTIONS[each.scene.background] if name == SPLIT_WORDS else ""
        found, cost = split_scene(painter, segmenter, each.scene, each.seed, behind)
        given = vars(cost)
    return layer_measures(found, each.scene), given, sheet(found, each.scene)


def sheet(found: TakenApart, scene: Scene) -> np.ndarray:
    """The picture, the background and each layer before grey; below, what is true: uint8 (h w 3)."""
    true = [true_layer(thing) for thing in scene.objects]
    rows = (
        [found.composite(), found.background, *(layer.over(GREY) for layer in found.layers)],
        [scene.image / LEVELS, scene.backdrop / LEVELS, *(layer.over(GREY) for layer in true)],
    )
    return np.round(LEVELS * np.clip(np.concatenate([np.concatenate(row, 1) for row in rows]), 0, 1)).astype(np.uint8)


def results(records: PictureRecords) -> dict[str, list[dict]]:
    """Rows and differences out of the records alone."""
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, [SET], METHODS, by_tag=False),
        "comparisons": Compared(records, [SET]).rows(PAIRS),
    }
