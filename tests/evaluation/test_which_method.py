"""One layout through every method: its graphs are what the nodes accept, and its table says what rows say."""

import pytest
from stagecraft.evaluation.pages.ways import ways_table
from stagecraft.evaluation.which_method.main import FOLDER, scene
from stagecraft.evaluation.which_method.ways import WAYS


def test_the_layout_is_the_same_for_all_and_two_things_overlap():
    first, second = scene(1).layout, scene(2).layout
    assert first.to_dict() == second.to_dict() and [region.phrase for region in first.regions] == ["a house", "a dog"]
    house, dog = first.masks(64, 64)
    assert (house * dog).sum() > 0


def test_every_method_has_its_pictures_and_says_what_it_is_for():
    assert {path.stem for path in FOLDER.glob("*.webp")} == {*WAYS, "layout"}
    assert all(way.good and way.bad for way in WAYS.values())


@pytest.mark.parametrize(("evaluations", "seconds", "cost"), [(100, 9.0, "2.5 x"), (None, 9.0, "3 x in time")])
def test_costs_are_in_units_of_the_plain_picture(evaluations, seconds, cost):
    plain = {"method": "plain", "network": "U-Net", "seconds": 3.0, "evaluations": 40}
    text = ways_table([plain, {"method": "edit", "network": "U-Net", "seconds": seconds, "evaluations": evaluations}])
    line = next(line for line in text.splitlines() if "edit.webp" in line)
    assert cost in line and len(text.splitlines()) == 4
