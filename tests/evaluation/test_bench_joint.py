"""Rows of `bench joint`; the measuring itself needs ComfyUI."""

import pytest
from stagecraft.evaluation.bench import joint
from stagecraft.evaluation.result_rows import BENCH_KEYS

SPEED = {
    "cpu": {"cfg": 20.0, "row": 10.0, "3": 5.0, "12": 22.0},
    "wall": {"cfg": 40.0, "row": 20.0, "3": 12.0, "12": 44.0},
    "operations": {"cfg": 8e12, "3": 2.2e12, "12": 8e12},
    "last": [3, 12],
    "blocks": 12,
}
STEPS = {"watched chosen": 1.01, "watched all": 1.1, "soft bias": 1.12, "soft merge": 1.08}


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the process that measures, with an answer to each."""
    asked = []

    def measure(module, arguments, *_):
        asked.append(arguments)
        if "--memory" in arguments:
            tokens = (int(arguments[-1]) // 2) ** 2
            return {"peak": 2e6 * tokens, "kept": 24 * tokens, "tokens": tokens}
        steps = {kind: {name: ratio * SPEED[kind]["cfg"] for name, ratio in STEPS.items()} for kind in ("cpu", "wall")}
        return SPEED | {kind: SPEED[kind] | steps[kind] for kind in steps}

    monkeypatch.setattr(joint, "measure_apart", measure)
    return asked


def ratios(rows, *parts):
    return [row["ratio"] for row in rows if all(part in row["name"] for part in parts)]


def test_rows_are_ratios_to_evaluations_of_both_kinds(asked):
    rows = joint.bench_joint()
    assert {tuple(row) for row in rows} == {BENCH_KEYS}
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert ratios(rows, "against an evaluation with CFG") == [0.25, 1.1]
    assert ratios(rows, "against an evaluation of one row") == [0.5, 2.2]
    assert "guidance iteration of a joint transformer to block 3 of 12, against an evaluation with CFG" in names


def test_iterations_are_compared_with_their_share_of_an_evaluation(asked):
    rows = joint.bench_joint()
    assert ratios(rows, "operations of a guidance iteration", "against 3/12 of") == [1.1]
    assert ratios(rows, "against 3/12 of an evaluation with CFG")[1:] == [1.0, 1.2], "computed, and by the wall"
    assert ratios(rows, "against 12/12 of an evaluation with CFG") == [1.0, 1.1, 1.1]


def test_steps_are_compared_with_plain_ones(asked):
    rows = joint.bench_joint()
    for name, ratio in zip(("two blocks", "all blocks", "by a mask", "by merging"), STEPS.values(), strict=True):
        assert ratios(rows, "step of", name, "plain step") == [ratio, ratio]


def test_memory_by_picture_tokens(asked):
    rows = {row["name"]: row for row in joint.bench_joint()}
    sizes = (1024, 4096, 16384)
    kept = [rows[f"maps of three tokens in two blocks, {tokens} picture tokens"] for tokens in sizes]
    assert [(row["value"], row["unit"]) for row in kept] == [(24.576, "kB"), (98.304, "kB"), (393.216, "kB")]
    for name in ("watching", "soft guidance by merging"):
        assert [rows[f"extra peak memory of {name}, {n} picture tokens"]["value"] for n in sizes] == [2048, 8192, 32768]
    assert "extra peak memory of soft guidance by a mask, 4096 picture tokens" in rows
    assert "extra peak memory of soft guidance by a mask, 16384 picture tokens" not in rows
    assert asked[0] == [] and ["--memory", "maps", "--cells", "256"] in asked
    joint.bench_joint(small=True)
    assert asked[-4:] == [["--small"], *(["--memory", what, "--cells", "16"] for what in ("maps", "bias", "merge"))]
