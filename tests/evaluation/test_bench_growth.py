"""Points, rows, table and plot of `bench growth`; the measuring itself needs ComfyUI, see tests/comfy/evaluation."""

import json

import pytest
from stagecraft.evaluation.bench import bench, growth
from stagecraft.evaluation.bench.growth_network import at_width
from stagecraft.evaluation.bench.growth_runs import layout_of
from stagecraft.evaluation.pages.growth_pages import COLOURS, counts_table, draw_growth, growth_table


def row(method, value=1, network="sd15", axis="regions", **more):
    measured = {"evaluations": 1, "rows": 2, "tflop": 2.0 * value, "peak_mb": 3.0, "seconds": None}
    return {"network": network, "axis": axis, "value": value, "method": method} | measured | more


def test_one_axis_changes_at_a_time():
    base = growth.Point()
    for axis, value, point in growth.points():
        changed = {name for name in ("regions", "canvas", "tokens") if getattr(point, name) != getattr(base, name)}
        assert changed <= {"regions" if axis == "layers" else axis}
        assert point.stacked == (axis == "layers")
        assert getattr(point, "regions" if axis == "layers" else axis) == value
    assert {axis: values[-1] for axis, values in growth.AXES.items()} == {
        "regions": 32,
        "canvas": 2048,
        "tokens": 616,
        "layers": 8,
    }


@pytest.mark.parametrize("regions", [1, 32])
def test_regions_lie_beside_each_other_and_layers_over_each_other(regions):
    masks = layout_of(growth.Point(regions=regions)).masks(512, 512)
    assert len(masks) == regions and masks.sum(0).max() <= 1 + 1e-6
    assert masks.mean((1, 2)).tolist() == pytest.approx([1 / 40] * regions, rel=1e-3)
    stacked = layout_of(growth.Point(regions=8, stacked=True))
    assert stacked.masks(512, 512).sum(0).max() == pytest.approx(8)
    assert stacked.visible_masks(512, 512).mean((1, 2)).min() > 0.01, "something is seen of each"


def test_a_wider_network_is_read_off_three_narrow_ones():
    def operations(width):
        return 5 + 7 * width + 11 * width**2

    assert at_width((32, 64, 96), [operations(w) for w in (32, 64, 96)], 320) == pytest.approx(operations(320))


def test_the_table_has_a_line_for_each_point_and_a_dash_for_what_was_not_measured():
    rows = [row("plain"), row("layered", tflop=8.25), row("plain", 2), row("guidance", 2, tflop=None)]
    lines = growth_table(rows).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")][4:] == ["plain", "layered", "guidance"]
    assert len(lines) == 4 and "8.25" in lines[2] and lines[3].count(" - ") == 2
    assert "seconds" not in growth_table(rows) and " s " not in growth_table(rows)
    timed = growth_table([*rows, row("set_mask", seconds=1.5)])
    assert "1.50" in timed and len(timed.splitlines()) == 5
    assert len(counts_table([*rows, row("plain", network="flux")]).splitlines()) == 2 + 3 * 2


def test_the_plot_has_a_panel_for_each_network_and_axis():
    rows = [
        row(method, value, network, axis)
        for network in growth.NETWORKS
        for axis, values in growth.AXES.items()
        for value in values
        for method in growth.METHODS
    ]
    figure = draw_growth(rows)
    assert len(figure.axes) == 8
    assert {len(panel.lines) for panel in figure.axes} == {len(growth.METHODS)}
    assert set(COLOURS) == set(growth.METHODS)


def test_the_command_writes_a_file_of_its_own(monkeypatch, tmp_path, capsys):
    asked = []

    def measure(module, arguments, *_):
        asked.append((module, *arguments))
        return {"rows": [row("plain", network=arguments[0])]}

    monkeypatch.setattr(growth, "measure_apart", measure)
    path = tmp_path / "growth.json"
    assert bench.main(["growth", "--quick", "--counts", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    (origin,) = written["provenance"]
    assert origin["code"] and origin["settings"] == {"names": ["growth"], "small": True, "timed": False}
    assert [each["network"] for each in written["rows"]] == ["sd15", "flux"]
    assert asked == [("growth_network", name, "--small", "--counts") for name in ("sd15", "flux")]
    assert "plain" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench.main(["picture", "--counts"])
    assert "--counts is for growth" in capsys.readouterr().err


def test_the_whole_bench_does_not_run_it_and_a_small_run_leaves_the_results(monkeypatch, tmp_path):
    assert "growth" not in bench.BENCHES
    monkeypatch.setattr(bench, "bench_growth", lambda small, timed: [row("plain")])
    monkeypatch.setattr(bench, "RESULTS_FILE", tmp_path / "growth.json")
    assert bench.main(["growth", "--small"]) == 0
    assert not list(tmp_path.iterdir())
    assert bench.main(["growth"]) == 0
    assert (tmp_path / "growth.json").is_file()
