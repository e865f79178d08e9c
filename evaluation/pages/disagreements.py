"""Pictures of which the shipped segmenter and the judge say different things, for a person to look at.

`python commands/launcher.py evaluation.pages.disagreements FOLDER` takes the pictures that `evaluate --pictures FOLDER`
kept, and writes `assets/disagreements.jpg`: under each picture the thing that one of the two finds where it was asked
for, at its size, and the other does not.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...commands.contact_sheet import contact_sheet
from ...commands.environment import CLONE
from ...core.scores.layout_score import score_pictures
from ...core.segmentation.segmenter import Segmenter
from ...sticker_world.shipped import SEGMENTER_FOLDER as SHIPPED
from ..judging.judges import SEGMENTER_FOLDER
from ..judging.scoring import spread
from ..judging.yardsticks import to_images
from ..sets.sets import LAYOUT_SETS, TUNING_SET, Item, load_set

FILE = CLONE / "assets" / "disagreements.jpg"
SHOWN, COLUMNS = 60, 10


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where `evaluate --pictures` kept its pictures")
    options = parser.parse_args(argv)
    shipped, judge = Segmenter.load(SHIPPED), Segmenter.load(SEGMENTER_FOLDER)
    found = [
        (path, f"{name}: {who} alone finds it")
        for path, item in judged_pictures(options.folder)
        for name, who in disagreements(path, item, shipped, judge)
    ]
    print(f"{len(found)} things of {len({path for path, _ in found})} pictures")
    if found:
        contact_sheet(spread(found, SHOWN), COLUMNS).save(FILE, quality=85)
        print(f"written: {FILE}")
    return 0


def judged_pictures(folder: Path) -> Iterator[tuple[Path, Item]]:
    """Pictures whose names begin with a set and the seed of one of its layouts, and these layouts."""
    items = {f"{name}_{item.seed}": item for name in (*LAYOUT_SETS, TUNING_SET) for item in load_set(name)}
    for path in sorted(folder.glob("*.png")):
        for start, item in items.items():
            if path.stem.startswith(f"{start}_"):
                yield path, item


def disagreements(path: Path, item: Item, shipped: Segmenter, judge: Segmenter) -> Iterator[tuple[str, str]]:
    """Phrases of things that one of the two finds present, and which: "shipped" or "judge"."""
    with Image.open(path, formats=["PNG"]) as opened:
        images = to_images([np.asarray(opened.convert("RGB"))])
    both = [score_pictures(images, [item.layout], each, [item.areas])[0] for each in (shipped, judge)]
    for before, now in zip(*both, strict=True):
        if before.present != now.present:
            yield now.phrase, "shipped" if before.present else "judge"
