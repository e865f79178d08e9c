"""A run on layouts that is stopped in any way goes on where it was and ends with the same rows."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.core.layered_rendering.vision_guidance import DEFAULT_T0
from stagecraft.evaluation import cli, layouts, sweeps
from stagecraft.evaluation.arguments import TABLES
from stagecraft.evaluation.judging.scoring import spread
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.layouts import Group, Size
from stagecraft.evaluation.painter import Painting
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.result_rows import read_results, write_results
from stagecraft.evaluation.sets.sets import TUNING_SET, load_set

SIZE = Size(layouts=2, seeds=2, tuning=True)
GROUPS = (Group("layouts", ("plain", "lrdiff", "perfect")), Group("sali", ("plain", "chen", "sali")))


class Painter:
    """Pictures that follow from method and item, as those of a server do, until it is stopped."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.painted, self.left = [], stop_after

    def paint_prompt(self, prompt: str, seed: int):
        self.painted.append(prompt)

    def paint(self, method, item, pictures: int):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        name = next((name for name, known in layouts.PAINTED.items() if known is method), repr(method))
        self.painted.append((name, item.seed))
        rng = np.random.default_rng([item.seed, *name.encode()])
        noise = rng.normal(0, 20, (pictures, *item.perfect_picture().shape))
        shown = np.roll(item.perfect_picture(), len(name), 1) + noise
        return Painting(list(shown.clip(0, 255).astype(np.uint8)), 1.5, 40)


@pytest.fixture(scope="module")
def yardsticks() -> Yardsticks:
    return Yardsticks.load()


def run(folder, yardsticks, painter, header=None):
    kept, header = [], header or {"code": "1", "date": "now"}
    groups = [(group, PictureRecords(folder / f"{group.name}.jsonl", header)) for group in GROUPS]
    return layouts.evaluate(painter, yardsticks, groups, SIZE, lambda name, _: kept.append(name)), kept


def test_what_is_there_is_not_painted_again(yardsticks, tmp_path):
    whole = Painter()
    results, kept = run(tmp_path / "whole", yardsticks, whole)
    seeds = [item.seed for item in spread(load_set(TUNING_SET), SIZE.layouts)]
    # methods in turns; what both groups have is painted once, and what is not painted needs no seed
    assert whole.painted == [
        "warm-up",
        *((method, seed) for seed in seeds for method in ("plain", "lrdiff")),
        *((method, seed) for seed in seeds for method in ("chen", "sali")),
    ]
    assert len(kept) == len(set(kept)) == 2 * 8 + 2
    assert [row["method"] for row in results["sali"]["rows"][:3]] == ["plain", "chen", "sali"]
    assert [row["pictures"] for row in results["layouts"]["rows"][:3]] == [4, 4, 2]
    assert {measure["name"].split(":")[0] for measure in results["sali"]["measures"]} == {"box IoU", "AP@0.5", "CLIP"}
    assert {(r["method"], r["against"]) for r in results["layouts"]["comparisons"]} == {("lrdiff", "plain")}
    again = Painter()
    assert run(tmp_path / "whole", yardsticks, again) == (results, []) and again.painted == []

    files = {name: (tmp_path / "whole" / f"{name}.jsonl").read_bytes() for name in ("layouts", "sali")}
    for stop in (1, 5):  # within the first group, and within the second
        folder = tmp_path / f"stopped {stop}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, yardsticks, Painter(stop))
        first = folder / "layouts.jsonl"
        if first.exists():
            first.write_bytes(first.read_bytes()[:-9])  # and half a line of what was painted
        assert run(folder, yardsticks, Painter())[0] == results
        assert {name: (folder / f"{name}.jsonl").read_bytes() for name in files} == files


def test_sweeps_go_on_and_paint_equal_settings_once(yardsticks, tmp_path, monkeypatch):
    known = {
        "end_at": sweeps.Sweep((0.1, DEFAULT_T0), ("lrdiff",)),
        "strength": sweeps.Sweep((1.0, 1.5), ("lrdiff",)),
        "top_k": sweeps.Sweep((5,), ("lrdiff",)),
    }
    monkeypatch.setattr(sweeps, "SWEEPS", known)
    file, header = tmp_path / "sweeps.json", {"code": "1"}
    old = {"sweep": "top_k", "value": 5, "method": "lrdiff"} | dict.fromkeys(sweeps.SCORES, 0.5)
    write_results(file, {"rows": [old]})

    def run(painter, *names, **given):
        records = PictureRecords(file.with_suffix(".jsonl"), header, **given)
        return sweeps.run(painter, yardsticks, names, records, layouts=2, seeds=1, path=file)

    with pytest.raises(KeyboardInterrupt):
        run(Painter(3), "end_at", "strength")
    assert [row["value"] for row in read_results(file)["rows"]] == [0.1, 5]  # other sweeps stay, in their own order
    found = run(again := Painter(), "end_at", "strength")
    rows, measures = found["rows"], found["measures"]
    assert len(again.painted) == 3  # both sweeps start at the defaults
    assert [row["value"] for row in rows] == [0.1, DEFAULT_T0, 1.0, 1.5]
    assert rows[1] | {"sweep": "", "value": ""} == rows[2] | {"sweep": "", "value": ""} != rows[0]
    assert all(tuple(row) == (*sweeps.KEY, *sweeps.SCORES, sweeps.INTERVALS) for row in rows)
    assert [each["name"].split(":")[1].split("against")[0] for each in measures] == [
        f" default end_at {DEFAULT_T0} ",
        " default strength 1.0 ",
    ]
    ap = {row["value"]: row["ap50"] for row in rows}
    for each, other in zip(measures, (0.1, 1.5), strict=True):
        assert each["value"] == (pytest.approx(ap[DEFAULT_T0] / ap[other] - 1, abs=1e-5) if ap[other] else None)
    # Without a provenance, since a row is of another run.
    assert read_results(file) == {"rows": [*rows, old], "measures": measures}
    assert run(none := Painter(), "strength")["rows"] == rows[2:] and none.painted == []
    (new,) = run(Painter(), "top_k")["rows"]
    assert read_results(file) == {"provenance": [header], "rows": [*rows, new], "measures": measures}
    assert len(PictureRecords(file.with_suffix(".jsonl"), header)) == 8
    # Of a file whose settings had other names, and so other units, no row stays.
    write_results(file, {"rows": [old | {"value": 5, "sweep": "t0"}, old | {"sweep": "strength", "value": 1.5}]})
    file.with_suffix(".jsonl").unlink()
    (new,) = run(Painter(), "top_k")["rows"]
    assert new in read_results(file)["rows"] and 0.5 not in {
        row["ap50"] for row in read_results(file)["rows"] if row != new
    }


def test_a_run_that_is_killed_goes_on(tmp_path):
    """The whole command in a process of its own, on pictures that need no server."""
    arguments = ["perfect", "--tuning", "--json"]
    command = [sys.executable, str(CLONE / "commands" / "launcher.py"), "evaluation.cli", *arguments]
    killed, whole = tmp_path / "killed.json", tmp_path / "whole.json"
    lines, process = killed.with_suffix(".jsonl"), subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < 4):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = lines.read_bytes()
    assert 4 <= before.count(b"\n") < 61 and not killed.exists()
    for file in (killed, whole):
        assert cli.main([*arguments, str(file)]) == 0
    assert lines.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert lines.read_text().split("\n")[1:] == whole.with_suffix(".jsonl").read_text().split("\n")[1:]
    first, second = (json.loads(file.read_text()) for file in (killed, whole))
    assert first["rows"] == second["rows"] and first["rows"][0]["pictures"] == 60
    assert first["provenance"][0] | {"date": ""} == second["provenance"][0] | {"date": ""}


def test_tables_compare_what_they_hold():
    for group in TABLES:
        pairs = [pair for pair in layouts.PAIRS if set(pair) <= set(group.methods)]
        assert len(pairs) == len(group.methods) - 1 - (layouts.PERFECT in group.methods)
    assert len(set(layouts.PAIRS)) == len(layouts.PAIRS)
