"""What `bench soft` measures: three runs that differ in soft guidance and the local fuser alone."""

import pytest
import torch
from stagecraft.evaluation.bench.soft_network import SIZES, count_operations, make_runs


@pytest.fixture(scope="module")
def runs():
    return make_runs(SIZES["embedded"], 1)


def test_each_run_does_what_it_is_called(runs):
    with torch.inference_mode():
        pictures = {name: run() for name, run in runs.items()}
        assert torch.equal(runs["plain"](), pictures["plain"])
    assert all(picture.isfinite().all() for picture in pictures.values())
    for name in ("soft", "fuser"):
        assert (pictures[name] - pictures["plain"]).abs().max() > 1e-3, name


def test_operations_are_counted(runs):
    plain, soft, fuser = (count_operations(runs[name]) for name in ("plain", "soft", "fuser"))
    assert plain > 2 * 3e9  # two rows of the model; papers quote multiply-adds, here both count
    assert 1 < soft / plain < 1.03  # eight tokens more
    assert 1.2 < fuser / plain < 2
