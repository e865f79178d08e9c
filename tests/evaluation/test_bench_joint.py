"""Rows of `bench joint`; the measuring itself needs ComfyUI."""

from stagecraft.evaluation.bench import joint
from stagecraft.evaluation.result_rows import BENCH_KEYS


def test_rows_are_ratios_to_evaluations_of_both_kinds(monkeypatch):
    asked = []
    measured = {"cfg": 20.0, "row": 10.0, "iterations": {"3": 5.0, "12": 22.0}, "blocks": 12}
    monkeypatch.setattr(joint, "measure_apart", lambda module, arguments, *_: asked.append(arguments) or measured)
    rows = joint.bench_joint()
    assert [tuple(row) for row in rows] == [BENCH_KEYS] * 4
    assert [row["ratio"] for row in rows] == [0.25, 0.5, 1.1, 2.2]
    assert (
        rows[0]["name"] == "guidance iteration of a joint transformer to block 3 of 12, against an evaluation with CFG"
    )
    assert rows[3]["name"].endswith("to block 12 of 12, against an evaluation of one row")
    joint.bench_joint(small=True)
    assert asked == [[], ["--small"]]
