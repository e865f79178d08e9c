"""What a soft brush paints keeps its greys: on the canvas, in the text, in the layout and on the grid of a method."""

import json

import pytest
import torch
from stagecraft.core.layout.canvas import read_canvas
from stagecraft.core.layout.masks import resample_by_area

EMPTY = {"width": 512, "height": 512, "prompt": "", "background": "", "regions": []}
REACH = 24  # pixels of the brush's radius


@pytest.fixture(params=["classic", "vue"])
def canvas(request, editors, pinned):
    editor = editors.get(pinned, request.param)
    editor.add_canvas(json.dumps(EMPTY))
    yield editor
    editor.page.get_by_label("Softness of the brush").evaluate("(each) => { each.value = 0 }")
    assert not editor.problems


def only_mask(editor):
    (region,) = read_canvas(editor.text).regions
    return region.mask


def test_a_soft_stroke_keeps_its_greys_all_the_way_to_a_method(canvas):
    canvas.press("p")
    canvas.page.get_by_label("Softness of the brush").fill("0.5")
    canvas.drag((200, 256), (300, 256))
    canvas.page.keyboard.type("a fog")
    canvas.page.keyboard.press("Enter")
    mask = only_mask(canvas)
    assert mask.shape == (512, 512) and mask.max() == 1
    # From full at half of the radius to nothing at its end, across the stroke.
    down = mask[256 : 256 + REACH + 4, 250]
    assert torch.all(down[:11] == 1) and torch.all(down[REACH + 1 :] == 0) and torch.all(down.diff() <= 0)
    assert len(down.unique()) > 10
    assert torch.equal(mask, (mask * 255).round() / 255)

    # What a method works with: the share of every latent cell, of greys and not of halves.
    layout = read_canvas(canvas.text)
    cells = layout.visible_masks(64, 64)
    torch.testing.assert_close(cells[1], resample_by_area(mask, 64, 64), atol=1e-6, rtol=0)
    torch.testing.assert_close(cells[0], 1 - cells[1], atol=1e-6, rtol=0)
    hard = resample_by_area((mask >= 0.5).float(), 64, 64)
    assert (cells[1] - hard).abs().max() > 0.1

    # Moved by a cell it is the same mask in another place; a softer eraser leaves greys too.
    canvas.press("v", "ArrowRight")
    moved = only_mask(canvas)
    assert torch.equal(moved[:, 8:], mask[:, :-8])
    canvas.press("e")
    canvas.drag((250, 240), (260, 240))
    erased = only_mask(canvas)
    assert torch.all(erased <= moved) and not torch.equal(erased, moved) and len(erased.unique()) > 10
    canvas.press("Control+z")
    assert torch.equal(only_mask(canvas), moved)
    again = read_canvas(json.dumps(read_canvas(canvas.text).to_dict()))
    assert torch.equal(again.regions[0].mask, moved)
    canvas.press("v")
