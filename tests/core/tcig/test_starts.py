"""Where drafts begin, how large they are, and how their losses are drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.drawing.plots import plot_losses
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.tcig.draft import CLIP
from stagecraft.core.tcig.optimisation import DraftError
from stagecraft.core.tcig.starts import flat_colours, outside_regions, picture_start, random_start, whole_cells
from stagecraft.core.tcig.vqgan import VQGAN
from stagecraft.tests.core.tcig.colour_models import LAYOUT, ColourCodes


@pytest.fixture(scope="module")
def vqgan():
    return VQGAN(ColourCodes())


def test_starts(vqgan):
    colours = flat_colours(parse_layout(LAYOUT.replace("0.75", "0.75 | colour=#ff8000"), width=64, height=64), 8, 8)
    assert colours[0, :, 3, 1].tolist() == pytest.approx([1.0, 128 / 255, 0.0], abs=1e-6)
    assert colours[0, :, 7, 7].tolist() == [0.5] * 3
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64)
    place = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    on_place = flat_colours(layout, 16, 16, place)
    assert torch.equal(on_place[..., :8], flat_colours(layout, 16, 16)[..., :8])
    torch.testing.assert_close(on_place[..., 8:], place[..., 8:])
    assert flat_colours(layout, 32, 24, place).shape == (1, 3, 32, 24)  # stretched
    assert len({tuple(colours[0, :, y, x].tolist()) for y, x in ((3, 1), (1, 6), (7, 7))}) == 3
    latent = picture_start(vqgan, colours, 32, 16)
    assert latent.shape == (1, 3, 8, 4) and torch.equal(vqgan.nearest(latent), latent)
    first, again, other = (random_start(vqgan, 32, 16, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(vqgan.nearest(first), first)


def test_what_lies_outside_of_the_regions():
    layout = parse_layout("a dog: 0.25 0.25 0.5 0.5", width=64, height=64)
    found = outside_regions(layout, 64, 32, 8)
    expected = torch.ones(8, 4)
    expected[1:5, 0:3] = 0  # rows 16 to 32 and columns 8 to 16, a cell more to every side
    assert torch.equal(found, expected[None, None])
    whole = parse_layout("a dog: 0 0 1 1", width=64, height=64)
    assert not outside_regions(whole, 64, 64, 8).any()


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(16, 600))
def test_a_draft_has_whole_cells_and_about_the_shape_of_the_canvas(width, height, size):
    layout = parse_layout(LAYOUT, width=width, height=height)
    found = whole_cells(layout, size, 8)
    exact = (size * height / max(width, height), size * width / max(width, height))
    assert all(side % 8 == 0 and side >= 8 for side in found)
    assert all(abs(side - each) <= 4 or side == 8 for side, each in zip(found, exact, strict=True))
    with pytest.raises(DraftError, match="size is 7"):
        whole_cells(layout, 7, 8)


def test_losses_are_drawn():
    rising, falling = tuple(range(50)), tuple(range(50, 0, -1))
    first = plot_losses({CLIP: falling, "segmenter": rising}, "losses")
    assert first.ndim == 3 and first.shape[2] == 3 and 0 <= first.min() and first.max() <= 1
    assert not torch.equal(first, plot_losses({CLIP: rising, "segmenter": rising}, "losses"))
    assert plot_losses({CLIP: (0.0,)}, "").shape == plot_losses({CLIP: (-1.0, 2.0)}, "").shape == first.shape
