"""Text2Layer (arXiv 2307.09781): its tables at Sticker World's scale, `python stage.py evaluate text2layer`.

Only one U-Net is shipped. The paper's own rows, and the autoencoders that they are compared with, were trained for as
many steps and are taken from the training folder; rows whose weights are not there are left out.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...core.scores.metrics import mask_iou, mean_or_none
from ...sticker_world.shipped import TEXT2LAYER_FILE
from ...sticker_world.text2layer.samples import whole_sample
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.scene import make_scene
from ..base_family import all_present
from ..judging.scoring import spread
from ..judging.yardsticks import Yardsticks, image_scores
from ..painter import TIMEOUT, Painter, evaluation_server
from ..result_rows import measure, result_row
from ..sets.sets import PresencePrompt, exactly, load_presence
from ..summary.kernel_distance import kid, scaled
from . import layer_by_layer
from .rows import AT_ONCE, CODEC_NAMES, NAMES, SHIPPED, Decoded, missing_parts, open_codec, open_painter
from .scores import TwoLayers, frechet_distance, likeness, mean_likeness

TEXT2LAYER = "text2layer"
TABLE, AUTOENCODER, LAYERS = "text2layer_table", "text2layer_autoencoder", layer_by_layer.SET
COUNTS = (1, 2, 3)  # things in a prompt; a third of the pictures each
TABLE_WANTED, LAYERS_WANTED, SCENES_WANTED = 240, 100, 90
SCENES_SEED, SCENES_TUNING_SEED, PROMPTS_TUNING_SEED = 7_061, 7_062, 7_063
MASK_TARGET, FRECHET_TARGET = 0.85, 0.75  # the latter times that of the stacked latents
DECIBELS_TARGET, DECODED_MASK_TARGET = 28.0, 0.95

Found = tuple[list[dict], list[dict]]  # rows and measures
Keep = Callable[[str, np.ndarray], None]  # takes a picture's name and the picture


@dataclass(frozen=True)
class Asked:
    """What of the evaluation is asked for.

    Attributes:
        parts: some of `PARTS`.
        number: prompts and scenes of each part; None takes all.
        tuning: other prompts and scenes, the only ones to choose settings on.
    """

    parts: Sequence[str]
    number: int | None
    tuning: bool = False

    def at_most(self, wanted: int) -> int:
        """How many of something that there are so many of."""
        return wanted if self.number is None else min(self.number, wanted)


def evaluate(yardsticks: Yardsticks, asked: Asked, keep: Keep) -> dict[str, list[dict]]:
    """Paint and judge.

    Args:
        yardsticks: the judges.
        asked: what of it.
        keep: called with every picture.

    Returns:
        Rows and measures of results.

    Raises:
        SetupProblem: the shipped file is missing.
    """
    if not TEXT2LAYER_FILE.is_file():
        raise SetupProblem(f"{TEXT2LAYER_FILE} is missing. Make it with: python stage.py train text2layer")
    rows, measures = [], []
    for name, part in PARTS.items():
        if name in asked.parts:
            for known, found in zip((rows, measures), part(yardsticks, asked, keep), strict=True):
                known += found
    return {"rows": rows, "measures": measures}


def is_whole(results: dict[str, list[dict]] | None) -> bool:
    """Whether everything was there, the baselines too, so that committed results may be replaced."""
    found = {(row["set"], row["method"]) for row in results["rows"]} if results is not None else set()
    wanted = {(TABLE, name) for name in NAMES.values()} | {(AUTOENCODER, name) for name in CODEC_NAMES.values()}
    return wanted | {(LAYERS, layer_by_layer.METHOD)} <= found


def _left_out(method: str, name: str) -> None:
    logging.warning(
        f'There are no finished weights of "{method}" in the training folder, so its rows are left out. Train them '
        f"with: python stage.py train {' '.join(missing_parts(name))}"
    )


def held_out_prompts(things: int, number: int, *, tuning: bool) -> list[PresencePrompt]:
    """Prompts of so many things: some of the committed ones, or others that follow from their seed."""
    if not tuning:
        return spread(load_presence(things), number)
    scenes = (make_scene(PROMPTS_TUNING_SEED, i, held_out=True, counts=exactly(things)) for i in range(number))
    found = []
    for index, scene in enumerate(scenes):
        concepts = tuple(thing.concept for thing in scene.objects)
        seed = PROMPTS_TUNING_SEED * 10_000 + 1_000 * things + index
        found.append(PresencePrompt(plain_prompt(concepts, scene.background), concepts, scene.background, seed))
    return found


def table_prompts(number: int, *, tuning: bool) -> list[PresencePrompt]:
    """Held-out prompts, as many of one, two and three things."""
    each = -(-number // len(COUNTS))
    return [prompt for things in COUNTS for prompt in held_out_prompts(things, each, tuning=tuning)]


def _table(yardsticks: Yardsticks, asked: Asked, keep: Keep) -> Found:
    prompts = table_prompts(asked.at_most(TABLE_WANTED), tuning=asked.tuning)
    real = torch.cat([yardsticks.real(things) for things in COUNTS])
    rows, distances = {}, {}
    for part, method in NAMES.items():
        painter = open_painter(part)
        if painter is None:
            _left_out(method, part)
            continue
        found = list(_painted(painter.paint, prompts, method))
        for prompt, each in zip(prompts, found, strict=True):
            keep(f"{TABLE}_{prompt.seed}_{part}", _shown(each))
        features = yardsticks.image_features([each.picture for each in found])
        distances[part] = frechet_distance(scaled(features), scaled(real))
        rows[part] = _table_row(yardsticks, method, prompts, found, features, real)
    return list(rows.values()), table_measures(distances, {part: row["mask_iou"] for part, row in rows.items()})


def _painted(paint: Callable, prompts: Sequence[PresencePrompt], method: str) -> Iterator[Decoded]:
    with tqdm(total=len(prompts), desc=method, unit="picture") as bar:
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            yield from paint([prompt.prompt for prompt in part], [prompt.seed for prompt in part])
            bar.update(len(part))


def _shown(found: Decoded) -> np.ndarray:
    """The composite, and beside it foreground, background and mask where there are any."""
    if found.layers is None:
        return found.picture
    mask = np.repeat(found.layers.mask[..., None], 3, -1)
    parts = (mask * found.layers.foreground, found.layers.background, mask)
    return np.concatenate([found.picture, *(np.round(255 * x.clip(0, 1)).astype(np.uint8) for x in parts)], 1)


def _table_row(
    yardsticks: Yardsticks,
    method: str,
    prompts: Sequence[PresencePrompt],
    found: Sequence[Decoded],
    features: Tensor,
    real: Tensor,
) -> dict:
    images = image_scores(yardsticks, features, [prompt.prompt for prompt in prompts], None)
    # Prompts of one, two and three things are mixed, and so are the real scenes.
    images["kid"] = kid(features, real)
    present = (all_present(yardsticks, each.picture, p.concepts) for p, each in zip(prompts, found, strict=True))
    overlaps = (
        mask_iou(each.layers.mask, yardsticks.labels(each.picture) > 0) for each in found if each.layers is not None
    )
    return result_row(
        method,
        TABLE,
        images=images,
        pictures=len(found),
        presence=mean_or_none(present),
        mask_iou=mean_or_none(overlaps),
    )


def table_measures(distances: dict[str, float | None], overlaps: dict[str, float | None]) -> list[dict]:
    """FID and mask IoU of the table's rows, a key of `NAMES` each, and what is asked of those with a CaT2I-AE.

    Args:
        distances: FID; that of the stacked latents, where it is there, sets the target.
        overlaps: mask IoU against the segmenter; None without layers.
    """
    stacked, found = distances.get("t2l_stacked"), []
    for part, distance in distances.items():
        ours = part in (SHIPPED, "t2l_two")
        target = FRECHET_TARGET * stacked if ours and stacked is not None else None
        found.append(measure(f"table: {NAMES[part]}, FID in CLIP's features", distance, "", target))
        if overlaps[part] is not None:
            asked = MASK_TARGET if ours else None
            found.append(measure(f"table: {NAMES[part]}, mask IoU against the segmenter", overlaps[part], "", asked))
    return found


def layered_scenes(number: int, *, tuning: bool) -> list[TwoLayers]:
    """Held-out scenes of one, two, three, one, ... things, all of them before their background."""
    found = []
    for index in range(number):
        seed = SCENES_TUNING_SEED if tuning else SCENES_SEED
        scene = make_scene(seed, index, held_out=True, counts=exactly(COUNTS[index % len(COUNTS)]))
        sample = whole_sample(scene)
        parts = (part.astype(np.float32) / 255 for part in (sample.foreground, sample.background, sample.mask))
        found.append(TwoLayers(*parts))
    return found


def _autoencoder(_: Yardsticks, asked: Asked, keep: Keep) -> Found:
    scenes = layered_scenes(asked.at_most(SCENES_WANTED), tuning=asked.tuning)
    rows, measures = [], []
    for name, method in CODEC_NAMES.items():
        codec = open_codec(name)
        if codec is None:
            _left_out(method, name)
            continue
        found = codec.through(scenes)
        for index, each in enumerate(found):
            keep(f"{AUTOENCODER}_{index}_{name}", _shown(each))
        mean = mean_likeness([likeness(each.layers, true) for each, true in zip(found, scenes, strict=True)])
        rows.append(result_row(method, AUTOENCODER, pictures=len(scenes), mask_iou=mean.mask))
        decibels, overlap = (DECIBELS_TARGET, DECODED_MASK_TARGET) if name == SHIPPED else (None, None)
        measures += [
            measure(f"autoencoder: {method}, PSNR of the foreground inside its mask", mean.foreground, "dB", decibels),
            measure(f"autoencoder: {method}, PSNR of the background", mean.background, "dB", decibels),
            measure(f"autoencoder: {method}, PSNR of the composite", mean.composite, "dB", decibels),
            measure(f"autoencoder: {method}, mask IoU", mean.mask, "", overlap),
        ]
    return rows, measures


def _layers(yardsticks: Yardsticks, asked: Asked, keep: Keep) -> Found:
    prompts = held_out_prompts(COUNTS[-1], asked.at_most(LAYERS_WANTED), tuning=asked.tuning)
    painted = []
    with evaluation_server() as server:
        painter = Painter(server)
        # Loading the models is not part of the first picture's time.
        painter.server.run(layer_by_layer.graph(prompts[0], steps=1), timeout=TIMEOUT)
        for prompt in tqdm(prompts, LAYERS, unit="picture"):
            painted.append(layer_by_layer.paint(painter, yardsticks, prompt))
            keep(f"{LAYERS}_{prompt.seed}", layer_by_layer.shown(painted[-1]))
    return [layer_by_layer.layers_row(yardsticks, painted)], layer_by_layer.layers_measures(painted)


PARTS: dict[str, Callable[[Yardsticks, Asked, Keep], Found]] = {
    TABLE: _table,
    AUTOENCODER: _autoencoder,
    LAYERS: _layers,
}
