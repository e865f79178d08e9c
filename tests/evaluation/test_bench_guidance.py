"""Rows of `bench guidance`, and how benches share a result file; the measuring itself needs ComfyUI."""

import json

import pytest
from stagecraft.commands.messages import SetupProblem
from stagecraft.evaluation import result_rows
from stagecraft.evaluation.bench import bench, guidance
from stagecraft.evaluation.result_rows import BENCH_KEYS

MEASURED = {
    "time": {"cfg": 20.0, "iteration": 10.0, "reference": 16.0},
    "memory-guidance": {"bytes": 1e9},
    "memory-reference": {"bytes": 4e9},
    "outside": {"plain": 20.0, "outside": 20.1},
}


def test_rows_are_ratios_to_baselines_of_the_same_backend(monkeypatch):
    asked = []
    monkeypatch.setattr(
        guidance, "_measure", lambda backend, case, small: asked.append((backend, case)) or MEASURED[case]
    )
    rows = guidance.bench_guidance()
    assert [tuple(row) for row in rows] == [BENCH_KEYS] * 7
    assert [row["ratio"] for row in rows] == [0.5, 0.625, 0.25, 0.5, 0.625, 0.25, 1.005]
    assert [row["unit"] for row in rows] == ["s", "s", "MB", "s", "s", "MB", "s"]
    assert rows[2]["value"] == 1000
    assert len({row["name"] for row in rows}) == 7
    assert len(asked) == len(set(asked)) == 7


def test_a_single_bench_keeps_the_other_rows_of_a_file(monkeypatch, tmp_path, capsys):
    path = tmp_path / "bench.json"
    names = ("name", "value", "unit", "baseline", "ratio")
    before = [dict(zip(names, (name, 1.0, "s", None, None), strict=True)) for name in ("picture", "guidance")]
    result_rows.write_results(path, {"rows": before})
    measured = [{**before[1], "value": 2.0}, {**before[1], "name": "memory"}]
    monkeypatch.setitem(bench.BY_ITSELF, "guidance", lambda small: measured if small else [])
    assert bench.main(["guidance", "--small", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["rows"] == [before[0], *measured]
    assert "memory" in capsys.readouterr().out


def test_a_measurement_that_fails_is_no_number(monkeypatch):
    class Here:
        python = "python-that-is-not-there"

        @staticmethod
        def variables():
            return {}

    class Failed:
        returncode, stdout = 1, ""

    monkeypatch.setattr(guidance, "current_environment", Here)
    monkeypatch.setattr(guidance.subprocess, "run", lambda *_, **__: Failed)
    with pytest.raises(SetupProblem, match="memory-guidance.*--small"):
        guidance._measure("pytorch", "memory-guidance", False)
