"""Result rows, files and tables, and that the README shows what the result files hold."""

import argparse
import json
from pathlib import Path

import pytest
from stagecraft.core.layout_score import RegionScore
from stagecraft.evaluation import bench, cli, readme_tables, tables
from stagecraft.evaluation.yardsticks import result_row

DESIGN_KEYS = (
    "method", "set", "pictures", "box_iou", "ap50", "mask_iou", "bleed", "presence", "clip", "kid", "seconds",
)  # fmt: skip
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
    cli.write_results(tmp_path / "new" / "results.json", content)
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        cli.write_results(tmp_path / "results.json", {"rows": [row(kid=float("nan"))]})


def options(**given) -> argparse.Namespace:
    return argparse.Namespace(**{"json": None, "tuning": False, "layouts": None, **given})


def test_only_full_runs_replace_the_committed_results(tmp_path):
    results = {"layouts": {"rows": [row()]}, "base": {"rows": [row()], "measures": []}}
    full = list(cli.CHOICES)
    assert [path.name for path, _ in cli.result_files(results, full, options())] == ["layouts.json", "base.json"]
    assert [path.name for path, _ in cli.result_files(results, ["plain", "base"], options())] == ["base.json"]
    assert cli.result_files(results, full, options(layouts=3)) == []
    assert cli.result_files(results, full, options(tuning=True)) == []
    ((path, content),) = cli.result_files(results, full, options(json=tmp_path / "x.json", layouts=3))
    assert path == tmp_path / "x.json"
    assert len(content["rows"]) == 2


def test_a_part_of_a_set_keeps_its_categories():
    rows = [category for category in "abcde" for _ in range(8)]
    assert sorted(set(cli.spread(rows, 5))) == list("abcde")
    assert cli.spread(rows, None) == cli.spread(rows, 99) == rows
    assert len(cli.spread(rows, 7)) == 7


@pytest.mark.parametrize("arguments", [["lrdif"], ["--layouts", "0"], ["plain", "--seeds", "0"]])
def test_wrong_arguments_end_with_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "stage.py evaluate: error:" in capsys.readouterr().err


def test_an_unknown_bench_ends_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        bench.main(["pictures"])
    assert "there is no bench 'pictures'" in capsys.readouterr().err


def test_tables_are_markdown_with_aligned_columns():
    text = tables.results_table([row(), row(method="lrdiff", kid=None)])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "method", "set", "pictures", "box IoU", "AP@0.5", "bleed", "presence", "CLIP", "KID x 1000", "s / picture",
    ]  # fmt: skip
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
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    cli.write_results(tmp_path / "layouts.json", {"rows": [row(), row(set="objects_2/masks")]})
    text = "before\n<!-- table:layouts -->\nold\n<!-- /table -->\nafter\n"
    new = readme_tables.rewrite(text)
    assert new.startswith("before\n<!-- table:layouts -->\n| method") and new.endswith("<!-- /table -->\nafter\n")
    assert "From `python stage.py evaluate`." in new
    assert "old" not in new and "objects_2/masks" not in new
    assert readme_tables.rewrite(new) == new
    with pytest.raises(ValueError, match='no table "layout"'):
        readme_tables.rewrite(text.replace("table:layouts", "table:layout"))


def test_the_readme_shows_the_committed_results():
    text = Path(readme_tables.README).read_text(encoding="utf-8")
    assert readme_tables.MARKED.search(text), "the README has no marked table"
    assert readme_tables.rewrite(text) == text, "run: python commands/launcher.py evaluation.readme_tables"
