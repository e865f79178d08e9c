"""What a Mac's GPU lacks, out of operations that it has: the same as torch's own, backwards too."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.drawing import resizing

CLONE = Path(__file__).resolve().parents[3]
SIDES, NEW_SIDES = st.integers(1, 40), st.integers(2, 40)
SIZES = [((256, 256), (224, 224)), ((224, 224), (256, 256)), ((700, 300), (96, 97))]
PAIRS = {
    "resized": (lambda x, size: F.interpolate(x, size, mode="bilinear", antialias=True), resizing.resized_by_matrices),
    "mean_pooled": (F.adaptive_avg_pool2d, resizing.mean_pooled_by_matrices),
    "largest_pooled": (F.adaptive_max_pool2d, resizing.largest_pooled_by_places),
}


def both(job, shape, size):
    """What torch's operation gives and ours, each with the gradient of a weighted sum."""
    generator = torch.Generator().manual_seed(sum(shape) + sum(size))
    pictures = torch.rand(2, 3, *shape, generator=generator)
    weights = torch.randn(2, 3, *size, generator=generator)
    found = []
    for function in PAIRS[job]:
        x = pictures.clone().requires_grad_()
        y = function(x, size)
        (y * weights).sum().backward()
        found.append((y.detach(), x.grad))
    return found


@pytest.mark.parametrize("job", PAIRS)
@given(shape=st.tuples(SIDES, SIDES), size=st.tuples(NEW_SIDES, NEW_SIDES))
def test_it_is_what_torch_makes_of_any_sizes(job, shape, size):
    theirs, ours = both(job, shape, size)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("job", PAIRS)
@pytest.mark.parametrize(
    ("shape", "size"), [((256, 256), (224, 224)), ((224, 224), (256, 256)), ((700, 300), (96, 97))]
)
def test_it_is_what_torch_makes_of_the_sizes_of_networks(job, shape, size):
    theirs, ours = both(job, shape, size)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("job", PAIRS)
def test_a_device_that_lacks_it_gets_ours_and_others_torchs_to_the_bit(job, monkeypatch):
    pictures, size = torch.rand(1, 3, 21, 17), (8, 9)
    theirs, ours = (function(pictures, size) for function in PAIRS[job])
    assert torch.equal(getattr(resizing, job)(pictures, size), theirs)
    monkeypatch.setattr(resizing, "LACKING", "cpu")
    assert torch.equal(getattr(resizing, job)(pictures, size), ours)


def test_a_single_column_is_resized_along_its_rows():
    """Torch 2.11 on a CPU gives its first row again and again."""
    column = torch.tensor([1.0, 5.0])[None, None, :, None].expand(1, 1, 2, 4)
    assert resizing.resized(column, (3, 1)).flatten().tolist() == pytest.approx([1.0, 3.0, 5.0])
    assert resizing.resized(column.mT, (1, 3)).flatten().tolist() == pytest.approx([1.0, 3.0, 5.0])


@pytest.mark.parametrize("folder", ["core", "nodes"])
def test_nothing_asks_a_device_for_it_elsewhere(folder):
    lacking = re.compile(r"antialias=True|adaptive_\w+_pool|Adaptive\w+Pool")
    files = [path for path in (CLONE / folder).rglob("*.py") if lacking.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(CLONE).as_posix() for path in files] == ["core/drawing/resizing.py"] * (folder == "core")
