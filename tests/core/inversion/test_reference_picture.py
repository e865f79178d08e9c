"""Reference pictures: where pasted things end up, what is seen of them, and that nothing else comes along."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.inversion.reference_picture import paste_things, textured_grey, thing_in
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.prompts import fill_prompt
from stagecraft.core.layout.region import LayoutError, Region

RED, GREEN, BLUE = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])


def picture(colour, height=24, width=32):
    """A thing of one colour on white, and where it is."""
    mask = torch.zeros(height, width)
    mask[5:17, 8:20] = 1
    return torch.where(mask[..., None] > 0, colour, torch.ones(3)), mask


def pasted(regions, size=(40, 48), background=0.5):
    layout = Layout(size[1], size[0], "", "", tuple(regions))
    things = [picture(colour) for colour, _ in zip((RED, GREEN, BLUE), regions, strict=False)]
    canvas = torch.full((*size, 3), background)
    return paste_things(canvas, layout, *zip(*things, strict=True)), canvas


boxes = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)


@settings(max_examples=40, deadline=None)
@given(boxes.filter(lambda box: box[2] - box[0] > 0.03 and box[3] - box[1] > 0.03))
def test_a_thing_fills_its_box_and_nothing_else(box):
    found, canvas = pasted([Region("a", box=box)])
    changed = (found != canvas).any(-1)
    x0, y0, x1, y1 = (round(value * side) for value, side in zip(box, (48, 40, 48, 40), strict=True))
    expected = torch.zeros_like(changed)
    expected[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    assert torch.equal(changed, expected)
    # Nothing of the white around the thing came along, even where it was scaled.
    torch.testing.assert_close(found[changed], RED.expand(int(changed.sum()), 3), atol=1e-5, rtol=0)


def test_nearer_things_hide_farther_ones():
    left, right = (0.0, 0.0, 0.6, 1.0), (0.4, 0.0, 1.0, 1.0)
    found, _ = pasted([Region("a", box=left, order=1), Region("b", box=right, order=0)])  # b gets the first picture
    assert torch.equal(found[20, 24].round(), GREEN) and torch.equal(found[20, 40].round(), RED)
    found, _ = pasted([Region("a", box=left), Region("b", box=right)])
    assert torch.equal(found[20, 24].round(), GREEN)


def test_a_mask_is_filled_to_its_outline():
    mask = torch.zeros(20, 24)
    mask[4:9, 3:20] = 1
    mask[9:16, 10:13] = 1  # a T, which the square thing does not have
    found, canvas = pasted([Region("a", mask=mask)])
    inside = mask.repeat_interleave(2, 0).repeat_interleave(2, 1) > 0
    torch.testing.assert_close(found[inside], RED.expand(int(inside.sum()), 3), atol=1e-5, rtol=0)
    assert torch.equal(found[~inside], canvas[~inside])


def test_a_region_of_strength_0_is_left_out():
    found, canvas = pasted([Region("a", box=(0, 0, 1, 1), strength=0.0)])
    assert torch.equal(found, canvas)


def test_a_thing_is_the_largest_part_of_a_map():
    likelihood = torch.zeros(12, 16)
    likelihood[2:8, 3:9] = 0.8
    likelihood[3, 4] = 1.0
    likelihood[10, 14] = 0.9
    expected = torch.zeros(12, 16)
    expected[2:8, 3:9] = 1
    assert torch.equal(thing_in(likelihood), expected)
    assert torch.equal(thing_in(1e-3 * likelihood - 5), expected)
    assert thing_in(torch.zeros(4, 4)).sum() == 16  # no thing anywhere: all of it, but never nothing


def test_grey_has_texture_of_every_size():
    found = textured_grey(64, 80, 3)
    assert found.shape == (64, 80, 3) and found.min() >= 0 and found.max() <= 1
    assert found.mean().item() == pytest.approx(0.5, abs=0.05)
    assert found.std().item() == pytest.approx(0.12, abs=0.02)
    cells = found.reshape(8, 8, 10, 8, 3).mean((1, 3))
    assert cells.std() > 0.05  # an autoencoder keeps this
    assert torch.equal(found, textured_grey(64, 80, 3)) and not torch.equal(found, textured_grey(64, 80, 4))


def test_templates_name_parts_of_a_layout():
    layout = Layout(64, 64, "a dog", "on grass", (Region("a dog", box=(0, 0, 1, 1)), Region("a cat", box=(0, 0, 1, 1))))
    assert fill_prompt("one {phrase} {background}", layout, layout.regions[1], "x") == "one a cat on grass"
    assert fill_prompt("{phrases}: {prompt}", layout, None, "x") == "a dog, a cat: a dog"
    with pytest.raises(LayoutError, match=r"The object prompt has the placeholder \{name\}; known: \{phrase\}, "):
        fill_prompt("{name}", layout, layout.regions[0], "object prompt")
