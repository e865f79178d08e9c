"""Text2Layer (arXiv 2307.09781): its tables at Sticker World's scale, `python stage.py evaluate text2layer`.

Only one U-Net is shipped. The paper's own rows, and the autoencoders that they are compared with, were trained for as
many steps and are taken from the training folder; rows whose weights are not there are left out.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...core.scores.metrics import mask_iou
from ...sticker_world.shipped import TEXT2LAYER_FILE
from ..base_family import all_present
from ..image_lines import image_line
from ..judging.scoring import add_real_scenes, large_enough
from ..judging.yardsticks import Yardsticks
from ..painter import TIMEOUT, Painter, evaluation_server
from ..records.lines import PictureLine, picture_line
from ..records.pictures import PictureRecords
from ..result_rows import measure
from ..sets.sets import PresencePrompt
from ..summary.compared import Compared
from ..summary.kernel_distance import scaled
from ..summary.means import mean_of
from ..summary.rows import real_features, summary_row, summary_rows
from . import layer_by_layer
from .rows import AT_ONCE, CODEC_NAMES, NAMES, SHIPPED, Decoded, missing_parts, open_codec, open_painter
from .scores import TwoLayers, frechet_distance, frechet_ratio, likeness
from .sets import COUNTS, held_out_prompts, layered_scenes, table_prompts

TEXT2LAYER = "text2layer"
TABLE, AUTOENCODER, LAYERS = "text2layer_table", "text2layer_autoencoder", layer_by_layer.SET
TABLE_WANTED, LAYERS_WANTED, SCENES_WANTED = 1000, 100, 90
MASK_TARGET, FRECHET_TARGET = 0.85, 0.75  # the latter times that of the stacked latents
DECIBELS_TARGET, DECODED_MASK_TARGET = 28.0, 0.95

STACKED = "t2l_stacked"  # what both of ours with a CaT2I-AE are measured against
# Measures of a decoded scene, by the attributes of a likeness.
DECODED = {
    "foreground": "PSNR of the foreground",
    "background": "PSNR of the background",
    "composite": "PSNR of the composite",
    "mask": "mask_iou",
}
Found = tuple[list[dict], list[dict], list[dict]]  # rows, comparisons and measures
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


@dataclass(frozen=True)
class Run:
    """What all parts need.

    Attributes:
        yardsticks: the judges.
        asked: what of the evaluation.
        records: that keep the pictures' scores.
        keep: called with every picture that is painted.
    """

    yardsticks: Yardsticks
    asked: Asked
    records: PictureRecords
    keep: Keep

    def lines(self, set_name: str, method: str) -> list[PictureLine]:
        """What is known of a method."""
        return [line for line in self.records if line.set_name == set_name and line.method == method]

    def compared(self, set_name: str, methods: Sequence[str]) -> list[dict]:
        """The shipped row minus every other one."""
        lines = [line for line in self.records if line.set_name == set_name]
        found = Compared(lines, (set_name,)).rows(
            [(NAMES[SHIPPED], name) for name in methods if name != NAMES[SHIPPED]]
        )
        return [row | {"set": set_name} for row in found]


def evaluate(run: Run) -> dict[str, list[dict]]:
    """Paint and judge what the records lack.

    Returns:
        Provenance, rows, comparisons and measures of results.

    Raises:
        SetupProblem: the shipped file is missing.
    """
    if not TEXT2LAYER_FILE.is_file():
        raise SetupProblem(f"{TEXT2LAYER_FILE} is missing. Make it with: python stage.py train text2layer")
    rows, comparisons, measures = [], [], []
    for name, part in PARTS.items():
        if name in run.asked.parts:
            for known, found in zip((rows, comparisons, measures), part(run), strict=True):
                known += found
    return {"provenance": [run.records.provenance], "rows": rows, "comparisons": comparisons, "measures": measures}


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


def _table(run: Run) -> Found:
    prompts = table_prompts(run.asked.at_most(TABLE_WANTED), tuning=run.asked.tuning)
    found = {}
    for part, method in NAMES.items():
        missing = [prompt for prompt in prompts if (method, TABLE, prompt.seed, 0) not in run.records]
        if missing:
            painter = open_painter(part)
            if painter is None:
                _left_out(method, part)
                continue
            for prompt, each in zip(missing, _painted(painter.paint, missing, method), strict=True):
                run.records.add([table_line(run.yardsticks, method, prompt, each, large_enough(len(prompts)))])
                run.keep(f"{TABLE}_{prompt.seed}_{part}", _shown(each))
        found[part] = run.lines(TABLE, method)
    real = None
    if large_enough(len(prompts)):
        for things in COUNTS:
            add_real_scenes(run.yardsticks, run.records, things)
        # Prompts of one, two and three things are mixed, and so are the real scenes.
        known = real_features(run.records)
        real = np.concatenate([known[things] for things in COUNTS])
    rows = [summary_row(NAMES[part], TABLE, lines, real) for part, lines in found.items()]
    return rows, run.compared(TABLE, [NAMES[part] for part in found]), table_measures(found, real)


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


def table_line(
    yardsticks: Yardsticks, method: str, prompt: PresencePrompt, found: Decoded, with_features: bool
) -> PictureLine:
    """The scores of a picture of the table; its mask IoU is that against the segmenter, where it has layers."""
    overlap = None
    if found.layers is not None:
        overlap = mask_iou(found.layers.mask, yardsticks.labels(found.picture) > 0)
    return image_line(
        yardsticks,
        (method, TABLE, prompt.seed, 0),
        found.picture,
        prompt.prompt,
        with_features=with_features,
        objects=len(prompt.concepts),
        present=all_present(yardsticks, found.picture, prompt.concepts),
        measures={"mask_iou": overlap},
    )


def table_measures(found: Mapping[str, Sequence[PictureLine]], real: np.ndarray | None) -> list[dict]:
    """FID and mask IoU of the table's rows, and what is asked of those with a CaT2I-AE.

    Args:
        found: pictures by row, a key of `NAMES`; FID beside that of the stacked latents needs those as well.
        real: (n d), features of real scenes; None, of too few pictures, leaves FID out.
    """
    features = (
        {} if real is None else {part: scaled(np.stack([x.features for x in each])) for part, each in found.items()}
    )
    measures = []
    for part, lines in found.items():
        ours = part in (SHIPPED, "t2l_two")
        if real is not None:
            distance = frechet_distance(features[part], scaled(real))
            measures.append(measure(f"table: {NAMES[part]}, FID in CLIP's features", distance))
        if ours and STACKED in features:
            ratio = frechet_ratio(features[part], features[STACKED], scaled(real))
            name = f"table: {NAMES[part]}, FID against {NAMES[STACKED]}, at most"
            measures.append(ratio.measure(name, "ratio", FRECHET_TARGET, "most"))
        fit = mean_of(lines, lambda line: line.measures.get("mask_iou"))
        if fit.value is not None:
            target = MASK_TARGET if ours else None
            measures.append(fit.measure(f"table: {NAMES[part]}, mask IoU against the segmenter", "", target))
    return measures


def _autoencoder(run: Run) -> Found:
    number, methods, measures = run.asked.at_most(SCENES_WANTED), [], []
    scenes: list[TwoLayers] = []
    for name, method in CODEC_NAMES.items():
        missing = [index for index in range(number) if (method, AUTOENCODER, index, 0) not in run.records]
        if missing:
            codec = open_codec(name)
            if codec is None:
                _left_out(method, name)
                continue
            scenes = scenes or layered_scenes(number, tuning=run.asked.tuning)
            found = codec.through([scenes[index] for index in missing])
            for index, each in zip(missing, found, strict=True):
                near = likeness(each.layers, scenes[index])
                given = {measured: getattr(near, attribute) for attribute, measured in DECODED.items()}
                run.records.add([picture_line(method, AUTOENCODER, index, measures=given)])
                run.keep(f"{AUTOENCODER}_{index}_{name}", _shown(each))
        methods.append(method)
        measures += autoencoder_measures(run.lines(AUTOENCODER, method), judged=name == SHIPPED)
    rows = summary_rows(run.records, (AUTOENCODER,), methods, by_tag=False)
    return rows, run.compared(AUTOENCODER, methods), measures


def autoencoder_measures(lines: Sequence[PictureLine], *, judged: bool) -> list[dict]:
    """How near one codec's layers come to what they were made of, and what is asked if it is to be judged."""
    named = {
        "foreground": ("PSNR of the foreground inside its mask", "dB", DECIBELS_TARGET),
        "background": ("PSNR of the background", "dB", DECIBELS_TARGET),
        "composite": ("PSNR of the composite", "dB", DECIBELS_TARGET),
        "mask": ("mask IoU", "", DECODED_MASK_TARGET),
    }
    return [
        mean_of(lines, lambda line, key=DECODED[part]: line.measures.get(key)).measure(
            f"autoencoder: {lines[0].method}, {name}", unit, target if judged else None
        )
        for part, (name, unit, target) in named.items()
    ]


def _layers(run: Run) -> Found:
    prompts = held_out_prompts(COUNTS[-1], run.asked.at_most(LAYERS_WANTED), tuning=run.asked.tuning)
    missing = [prompt for prompt in prompts if (layer_by_layer.METHOD, LAYERS, prompt.seed, 0) not in run.records]
    if missing:
        with evaluation_server() as server:
            painter = Painter(server)
            # Loading the models is not part of the first picture's time.
            painter.server.run(layer_by_layer.graph(missing[0], steps=1), timeout=TIMEOUT)
            for prompt in tqdm(missing, LAYERS, unit="picture"):
                painted = layer_by_layer.paint(painter, run.yardsticks, prompt)
                run.records.add([layer_by_layer.layers_line(run.yardsticks, painted)])
                run.keep(f"{LAYERS}_{prompt.seed}", layer_by_layer.shown(painted))
    rows = summary_rows(run.records, (LAYERS,), (layer_by_layer.METHOD,), by_tag=False)
    return rows, [], layer_by_layer.layers_measures(run.lines(LAYERS, layer_by_layer.METHOD))


PARTS: dict[str, Callable[[Run], Found]] = {
    TABLE: _table,
    AUTOENCODER: _autoencoder,
    LAYERS: _layers,
}
