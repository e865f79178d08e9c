"""The pictures of the help pages: which workflow shows a node, how much of it, how large the file may be."""

import json

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.messages import SetupProblem
from stagecraft.commands.pages.choice import BELOW, BETWEEN, SPECIAL, around, arranged, shown_in
from stagecraft.commands.pages.main import chosen
from stagecraft.commands.pages.picture import LARGEST_FILE, encoded, joined

AREAS = {1: (0, 0, 100, 50), 2: (150, 0, 100, 50), 3: (0, 400, 100, 50), 4: (5000, 0, 100, 50)}


def test_a_node_is_shown_in_the_smallest_workflow_that_has_it(tmp_path):
    for name, kinds in {"large": ("A", "B", "C"), "small": ("A", "B"), "other": ("C", "D", "E", "F")}.items():
        nodes = [{"id": 10 + number, "type": kind} for number, kind in enumerate(kinds)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"nodes": nodes}), encoding="utf-8")
    found = shown_in(tmp_path.glob("*.json"))
    assert {kind: (shown.workflow.stem, shown.node) for kind, shown in found.items()} == {
        "A": ("small", 10),
        "B": ("small", 11),
        "C": ("large", 12),
        "D": ("other", 11),
        "E": ("other", 12),
        "F": ("other", 13),
    }


def test_a_special_workflow_shows_only_what_no_other_does(tmp_path):
    for name, kinds in {SPECIAL[0]: ("A", "B"), "usual": ("A", "C", "D")}.items():
        nodes = [{"id": number, "type": kind} for number, kind in enumerate(kinds)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"nodes": nodes}), encoding="utf-8")
    found = shown_in(tmp_path.glob("*.json"))
    assert {kind: shown.workflow.stem for kind, shown in found.items()} == {
        "A": "usual",
        "B": SPECIAL[0],
        "C": "usual",
        "D": "usual",
    }


def test_the_nearest_neighbour_of_each_side_stands_beside_it_however_far_it_was():
    places = arranged(1, AREAS, [4], [3], 10)
    assert places == {1: AREAS[1], 4: (-BETWEEN - 100, 0, 100, 50), 3: (100 + BETWEEN, 0, 100, 50)}
    assert around(places.values()) == (-BETWEEN - 100, 0, 300 + 2 * BETWEEN, 50)
    assert arranged(1, AREAS, [], [], 10) == {1: AREAS[1]}


def test_more_neighbours_stand_below_each_other_as_far_as_they_fit():
    assert list(arranged(1, AREAS, [4, 4, 2, 3], [2], 50 + BELOW + 50)) == [1, 4, 2]
    assert list(arranged(1, AREAS, [4, 2, 3], [2], 1000)) == [1, 4, 2, 3]
    assert arranged(1, AREAS, [4, 2], [], 1000)[2] == (-BETWEEN - 100, 50 + BELOW, 100, 50)


def test_the_node_is_framed_and_the_result_lies_beside_it():
    sheet = np.asarray(joined(Image.new("RGB", (900, 600)), (100, 100, 200, 300), Image.new("RGB", (512, 256), "red")))
    assert sheet.shape[1] == 960
    assert (sheet[:, :700] != sheet[0, 0]).any() and not (sheet[:, :690] == (255, 0, 0)).all(-1).any()
    assert (sheet[:, 692:948] == (255, 0, 0)).all(-1).sum() == 256 * 128


def test_a_file_keeps_to_its_size_or_says_that_it_cannot():
    noise = np.random.default_rng(0).integers(0, 256, (400, 960, 3), dtype=np.uint8)
    coarse = Image.fromarray(noise).resize((96, 40)).resize((960, 400))
    assert len(encoded(coarse)) <= LARGEST_FILE
    with pytest.raises(ValueError, match="does not fit into 40000 bytes"):
        encoded(Image.fromarray(noise))


def test_a_node_without_a_page_is_refused():
    with pytest.raises(SetupProblem, match="No workflow shows 'KSampler', or it has no help page; there are Stage"):
        chosen(["KSampler"])
