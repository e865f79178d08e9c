"""Result rows, files and tables, and that the pages show what the result files hold."""

import json
import re

import pytest
from PIL import Image
from stagecraft.core.scores.layout_score import RegionScore
from stagecraft.evaluation import arguments, result_rows, sweeps
from stagecraft.evaluation.bench import bench
from stagecraft.evaluation.pages import age, page_tables, plots, tables
from stagecraft.evaluation.result_rows import result_row
from stagecraft.evaluation.summary.compared import ALL
from stagecraft.evaluation.summary.estimate import Estimate

DESIGN_KEYS = (
    "method",
    "set",
    "pictures",
    "box_iou",
    "ap50",
    "mask_iou",
    "bleed",
    "presence",
    "clip",
    "kid",
    "seconds",
)
HIT = RegionScore("a dog", "dog", (0, 0, 1, 1), (0, 0, 1, 1), 0.9, 1.0, None, 0.0, True)
MISS = RegionScore("a cat", "cat", (0, 0, 1, 1), None, 0.0, 0.0, None, None, False)


def row(**changes) -> dict:
    images = {"clip": 0.5, "kid": 0.002}
    return {**result_row("plain", "objects_2", [[HIT, MISS], [HIT]], images, [1.0, 2.0]), **changes}


def test_rows_have_the_same_keys_in_the_same_order():
    assert tuple(row()) == DESIGN_KEYS == tables.ROW_KEYS
    assert tuple(result_row("plain", "presence_1", pictures=3, presence=0.5)) == DESIGN_KEYS
    assert row()["pictures"] == 2
    assert (row()["box_iou"], row()["ap50"], row()["presence"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 0.5)
    assert (row()["mask_iou"], row()["bleed"], row()["seconds"]) == (None, 0.0, 1.5)
    assert result_row("plain", "presence_1", pictures=3, presence=0.5)["box_iou"] is None


def test_files_come_back_as_they_were(tmp_path):
    content = {"rows": [row(), row(kid=None)], "measures": [{"name": "x", "value": None, "unit": "", "target": 1.0}]}
    result_rows.write_results(tmp_path / "new" / "results.json", content)
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_rows.write_results(tmp_path / "results.json", {"rows": [row(kid=float("nan"))]})


def test_an_unknown_bench_ends_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        bench.main(["pictures"])
    assert "there is no bench 'pictures'" in capsys.readouterr().err


def test_columns_of_negative_numbers_are_numbers():
    assert tables.table(["what", "value"], [["a", "-1.50"], ["b", "-"]]).splitlines()[1] == "|------|------:|"


def test_defaults_of_before_say_that_their_units_are_others():
    measure = {"value": 0.1, "unit": "relative", "target": -0.1}
    now, then = ([{"name": f"AP@0.5, lrdiff: default {name} 0.7 against 0.9", **measure}] for name in ("end_at", "t0"))
    assert tables.defaults_table(now) == tables.measures_table(now)
    assert tables.defaults_table(then).endswith(tables.UNITS_OF_THEN) and "0.6" in tables.UNITS_OF_THEN


def test_tables_are_markdown_with_aligned_columns():
    text = tables.results_table([row(), row(method="lrdiff", kid=None)])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "method",
        "set",
        "pictures",
        "box IoU",
        "AP@0.5",
        "bleed",
        "presence",
        "CLIP",
        "KID x 1000",
        "s / picture",
    ]
    assert lines[1].count("-:") == 8  # numbers to the right
    assert "2.00" in lines[2] and lines[3].split("|")[9].strip() == "-"


def test_bench_takes_turns_and_counts_no_warm_up():
    order = []

    def job(name, seconds):
        return lambda turn: order.append((turn, name)) or seconds[turn]

    times = bench.measure_in_turns({"a": job("a", [99, 1, 5, 3]), "b": job("b", [99, 2, 2, 8])}, 3)
    assert times == {"a": 3, "b": 2}
    assert order == [(turn, name) for turn in range(4) for name in "ab"]


def test_marked_tables_are_replaced_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(page_tables, "RESULTS", tmp_path)
    result_rows.write_results(tmp_path / "layouts.json", {"rows": [row(), row(set="objects_2/masks")]})
    text = "before\n<!-- table:layouts -->\nold\n<!-- /table -->\nafter\n"
    new = page_tables.rewrite(text)
    assert new.startswith("before\n<!-- table:layouts -->\n| method") and new.endswith("<!-- /table -->\nafter\n")
    assert "From `python stage.py evaluate`." in new
    assert "old" not in new and "objects_2/masks" not in new
    assert page_tables.rewrite(new) == new
    unmeasured = page_tables.rewrite(text.replace("table:layouts", "table:sali"))
    assert page_tables.NOT_YET in unmeasured and page_tables.rewrite(unmeasured) == unmeasured
    with pytest.raises(ValueError, match='no table "layout"'):
        page_tables.rewrite(text.replace("table:layouts", "table:layout"))


def test_remarks_on_age_are_renewed_by_the_command_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(page_tables, "RESULTS", tmp_path)
    result_rows.write_results(tmp_path / "layouts.json", {"rows": [row()]})
    text = "<!-- table:layouts -->\n<!-- /table -->\n<!-- plot:sweeps -->\n<!-- /plot -->\n"
    asked = []
    marked = page_tables.rewrite(text, remark=lambda file: asked.append(file) or "Old.")
    assert asked == ["layouts", "sweeps"]
    assert "From `python stage.py evaluate`. *Old.*\n<!-- /table -->" in marked and marked.count("*Old.*") == 2
    assert page_tables.rewrite(marked) == marked
    assert page_tables.rewrite(marked, remark=lambda file: "") == page_tables.rewrite(text)


def test_results_are_older_than_code_that_has_changed_since(tmp_path):
    asked = []

    def said(commit, changed):
        provenance = {} if commit == "" else {"provenance": [{"commit": commit}]}
        result_rows.write_results(tmp_path / "sali.json", provenance | {"rows": [row()]})
        return age.remark("sali", tmp_path, lambda since, paths: asked.append((since, paths)) or changed)

    assert [said("a", changed) for changed in (True, False, None)] == [age.OLDER, "", age.UNKNOWN]
    assert said("", False) == age.OLDER and said(None, False) == age.UNKNOWN
    assert asked == [("a", age.measured_paths("sali"))] * 3
    shown = {each.file for each in page_tables.TABLES.values()} | set(page_tables.PLOTS)
    assert {path.stem for path in result_rows.RESULTS.glob("*.json")} <= set(age.ROOMS) == shown
    assert age.remark("editing", tmp_path) == ""  # nothing is measured yet
    for file in age.ROOMS:
        paths = age.measured_paths(file)
        assert "evaluation/graphs/builder.py" in paths
        # some rooms of core have no nodes of their own
        assert all((page_tables.CLONE / path).exists() for path in paths if not path.startswith("nodes/")), file
    watched = {path for file in age.ROOMS for path in age.measured_paths(file)}
    graphs = {f"evaluation/graphs/{path.name}" for path in (page_tables.CLONE / "evaluation" / "graphs").glob("*.py")}
    assert graphs - watched == {"evaluation/graphs/__init__.py", "evaluation/graphs/told.py"}  # they change no number


def test_methods_stand_beside_what_they_were_told():
    rows = [
        row() | {"method": name, "set": each, "evaluations": 69.0} for name in ("lrdiff", "perfect") for each in "ab"
    ]
    rows[1] |= {"evaluations": None}
    assert tables.told_table(rows).splitlines()[2:] == [
        "| lrdiff | whole prompt, boxes or masks, names | reconstructed |                69 | -                 |"
    ]


def test_intervals_stand_behind_their_numbers():
    intervals = {"box_iou": [0.5, 0.666], "kid": [-0.001, 0.0123]}
    new, old = tables.results_table([row(intervals=intervals), row()]).splitlines()[2:]
    cells = [cell.strip() for cell in new.strip("|").split("|")]
    assert cells[3:5] == ["0.67 [0.50, 0.67]", "0.667"] and "2.0 [-1.0, 12.3]" in cells
    assert "0.667" in old and "[" not in old
    measured = row(intervals={"PSNR outside": [20.06, 30.0]}) | {"PSNR outside": 25.0}
    heading, _, new, old = tables.results_table([measured, row()]).splitlines()
    assert "PSNR outside" in heading and "25.0 [20.1, 30.0]" in new and old.rstrip("| ").endswith("-")
    compared = {"method": "a", "against": "b", "score": "ap50", "pictures": 8, "low": 0.1, "high": 0.2}
    rows = [compared | {"set": name, "difference": 0.15, "verdict": "better"} for name in (ALL, "objects_1")]
    assert tables.comparisons_table(rows).splitlines()[2:] == [
        "| a      | b       | AP@0.5 |        8 | +0.15 [0.10, 0.20] | better    |"
    ]
    assert tables.differences_by_set_table(rows).splitlines()[2:] == [
        "| objects_1 | a      | b       | AP@0.5 |        8 | +0.15 [0.10, 0.20] | better    |"
    ]
    measures = [result_rows.measure("x", 0.5, "", 0.4), Estimate(0.5, (0.3, 0.6)).measure("y", "dB", 0.4)]
    assert "verdict" not in tables.measures_table(measures[:1])
    assert tables.measures_table(measures).splitlines()[2:] == [
        "| x    |             0.500 |      |     0.400 | -              |",
        "| y    | 0.50 [0.30, 0.60] | dB   |     0.400 | not told apart |",
    ]


@pytest.mark.parametrize("page", page_tables.PAGES, ids=lambda page: page.name)
def test_pages_show_the_committed_results(page):
    text = page.read_text(encoding="utf-8")
    assert page_tables.MARKED.search(text), f"{page.name} has no marked table"
    assert page_tables.rewrite_page(page) == text, "run: python commands/launcher.py evaluation.pages.page_tables"
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def sweep_row(point, pictures=20, **scores) -> dict:
    scores = {**dict.fromkeys(sweeps.SCORES, 0.5), "pictures": pictures, **scores}
    return dict(zip(sweeps.KEY, point, strict=True)) | scores


def test_sweeps_change_one_setting_and_start_from_a_method():
    points = sweeps.points(tuple(sweeps.SWEEPS))
    assert len(set(points)) == len(points)
    for point in points:
        name, value, method = point
        settings, start = sweeps.settings_of(point), sweeps.STARTS[method]
        assert getattr(settings, name) == value
        changed = {key for key, kept in vars(start).items() if getattr(settings, key) != kept}
        assert changed <= {name}


def test_plots_know_which_rows_they_show(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "RESULTS", tmp_path)
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "assets")
    rows = [sweep_row(point, bleed=None if point[1] == "" else 0.1) for point in sweeps.points(tuple(sweeps.SWEEPS))]
    result_rows.write_results(tmp_path / "sweeps.json", {"rows": rows})
    sets = ("objects_1", "objects_1/x")
    ablation = [row(method=name, set=set_name) for name in arguments.ABLATED for set_name in sets]
    result_rows.write_results(tmp_path / "ablation.json", {"rows": ablation})
    result_rows.write_results(tmp_path / "sali_sweeps.json", {"rows": rows})
    for name, shown in (("sweeps", rows), ("sali_sweeps", rows), ("ablation", ablation)):
        (path,) = plots.redraw(tmp_path / f"{name}.json")
        assert plots.shown_digest(path) == plots.digest(shown) != plots.digest(shown[1:])
        assert min(Image.open(path).size) > 200
    assert plots.redraw(tmp_path / "layouts.json") == plots.redraw(tmp_path / "other" / "sweeps.json") == []


def test_plots_show_the_committed_results():
    texts = [page.read_text(encoding="utf-8") for page in page_tables.PAGES]
    for _, kind, name, *_ in page_tables.MARKED.findall("".join(texts)):
        if kind == "plot":
            rows = result_rows.read_results(result_rows.RESULTS / f"{name}.json")["rows"]
            shown = plots.shown_digest(plots.picture_of(name))
            assert shown == plots.digest(rows), "run: python commands/launcher.py evaluation.pages.plots"


def test_marked_plots_become_pictures():
    new = page_tables.rewrite("<!-- plot:sweeps -->\n<!-- /plot -->\n")
    assert "](assets/sweeps.png)\n\nFrom `python stage.py evaluate --sweep all`.\n<!-- /plot -->" in new
    assert page_tables.rewrite(new) == new
    assert "](../assets/sweeps.png)" in page_tables.rewrite(new, page_tables.CLONE / "docs")
    with pytest.raises(ValueError, match='no plot "layouts"'):
        page_tables.rewrite(new.replace("plot:sweeps", "plot:layouts"))


def test_the_layout_for_crop_has_four_boxes_of_a_tenth_apart_from_each_other():
    layout = bench.four_boxes()
    assert bench.rows_of_step(layout) == 10
    for region in layout.regions:
        x0, y0, x1, y1 = region.box
        assert (x1 - x0) * (y1 - y0) == pytest.approx(0.1)
    assert layout.masks(256, 256).sum(0).max() <= 1 + 1e-6


def test_a_step_is_timed_without_what_stands_around_it():
    class Painter:
        asked = []

        def paint_graph(self, graph):
            seed, steps = graph
            self.asked.append(graph)
            waiting = 9.0 if len(self.asked) == 1 else 2.0  # the first also loads
            return [None] * 4, (waiting + 0.25 * steps) / 4

    job = bench._step_job(Painter(), lambda seed, steps: (seed, steps))
    assert job(0) == job(1) == pytest.approx(0.25)
    assert len({seed for seed, _ in Painter.asked}) == len(Painter.asked)  # nothing comes out of the server's cache
