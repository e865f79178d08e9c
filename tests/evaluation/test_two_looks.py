"""Which look pixels have, the layouts with two looks, and rows of what was measured."""

import numpy as np
import pytest
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.two_looks import evaluate as two_looks
from stagecraft.evaluation.two_looks.graphs import BOTH, LAYOUTS, OWN, WAYS, WITHOUT, looked_layouts
from stagecraft.evaluation.two_looks.measure import LOOKS, PLAIN, STATISTICS, LookMeasure, free_corners, statistics
from stagecraft.sticker_world.looks.drawing import in_look
from stagecraft.sticker_world.world.scene import make_scene

OTHERS = 555  # a series that neither the measure nor a training has seen
WHOLE = (0.0, 0.0, 1.0, 1.0)


def large_scenes(number):
    scenes = (make_scene(OTHERS, index, counts=(0, 1)) for index in range(200))
    return [s for s in scenes if max(s.objects[0].box[2] - s.objects[0].box[0], 0) >= 0.35][:number]


def test_looks_are_told_apart_on_scenes_that_nobody_has_seen():
    measure, right = LookMeasure.load(), []
    for scene in large_scenes(10):
        for look, draw in LOOKS.items():
            shares = measure.of(in_look(scene, draw), scene.objects[0].box)
            assert sum(shares.values()) == pytest.approx(1)
            right.append(max(shares, key=shares.get) == look)
    assert np.mean(right) >= 0.9
    assert min(measure.accuracy.values()) >= 0.85


def test_statistics_are_what_they_are_called():
    flat = statistics(np.full((64, 64, 3), 255, np.uint8), WHOLE)
    assert dict(zip(STATISTICS, flat, strict=True))["value"] == 1
    blocks = np.kron(np.random.default_rng(0).integers(0, 255, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    on, off = (
        statistics(each, WHOLE)[STATISTICS.index("edges on the grid of blocks")]
        for each in (blocks, np.roll(blocks, 5, (0, 1)))
    )
    assert on > 3 > 0 > off


def test_layouts_are_fixed_and_leave_corners_free():
    layouts = looked_layouts()
    assert len(layouts) == LAYOUTS == len({seed for seed, _, _ in layouts})
    assert [layout.to_dict() for _, layout, _ in looked_layouts(3)] == [
        layout.to_dict() for _, layout, _ in layouts[:3]
    ]
    assert {looks for _, _, looks in layouts} == {("neon", "pixels"), ("pixels", "neon")}
    for _, layout, looks in layouts:
        assert len(free_corners([region.box for region in layout.regions])) == 2
        assert [region.lora for region in layout.regions] == [f"sticker_world/{look}.safetensors:1.0" for look in looks]


def test_only_the_asked_way_says_loras():
    seed, layout, _ = looked_layouts(1)[0]
    graphs = {way: graph(layout, seed) for way, graph in WAYS.items()}
    kinds = {way: [node["class_type"] for node in graph.values()] for way, graph in graphs.items()}
    assert [kinds[way].count("LoraLoader") for way in (OWN, BOTH, WITHOUT)] == [0, 2, 0]
    assert ["lora" in str(graphs[way]) for way in (OWN, WITHOUT)] == [True, False]


def test_rows_and_differences_come_of_the_lines_alone():
    records = PictureRecords(None, {"commit": "0"})
    for seed, layout, looks in looked_layouts(3):
        for number, way in enumerate(WAYS):
            picture = np.random.default_rng([seed, number]).integers(0, 255, (256, 256, 3)).astype(np.uint8)
            records.add([two_looks.looked_line(way, seed, layout, looks, picture, seconds=1.0, evaluations=10)])
    found = two_looks.results(records)
    assert [row["method"] for row in found["rows"]] == list(WAYS)
    for row in found["rows"]:
        shares = [row[name] for name in (two_looks.OWN_LOOK, two_looks.OTHER_LOOK, two_looks.NO_LOOK)]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert set(row["intervals"]) >= {two_looks.OWN_LOOK, two_looks.BACKGROUND}
    assert {(row["method"], row["against"]) for row in found["comparisons"]} == set(two_looks.PAIRS)
    assert PLAIN in LOOKS and {each["name"].split(" on ")[0] for each in found["measures"]} == {
        "accuracy of the measure"
    }
