"""Rows of `bench soft`; the measuring itself needs ComfyUI, see tests/comfy/evaluation/test_soft_network.py."""

import pytest
from stagecraft.evaluation.bench import soft
from stagecraft.evaluation.result_rows import BENCH_KEYS

MEASURED = {"plain": 0.5, "soft": 0.51, "fuser": 0.7, "share": 0.5}


def test_rows_are_ratios_to_a_plain_step_of_the_same_run(monkeypatch):
    asked = []
    monkeypatch.setattr(
        soft, "measure_apart", lambda module, arguments, name, memory: asked.append(arguments) or MEASURED
    )
    rows = soft.bench_soft()
    assert [tuple(row) for row in rows] == [BENCH_KEYS] * 6
    assert [row["ratio"] for row in rows[:3]] == pytest.approx([1.02, 1.4, 0.8])
    assert [row["unit"] for row in rows[:3]] == ["ms", "ms", "of a step"]
    assert rows[2]["value"] == pytest.approx(0.4) and rows[2]["baseline"] == 0.5
    assert len({row["name"] for row in rows}) == 6
    assert asked == [("embedded",), ("sd15",)]
    asked.clear()
    assert len(soft.bench_soft(small=True)) == 3
    assert asked == [("embedded", "--small")]
