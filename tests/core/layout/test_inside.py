"""What is inside of a mask is said once: dust around a thing, and a fainter thing, change no box and no outline."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from stagecraft.core.attention.heat_maps import draw_heat_map
from stagecraft.core.compose_and_conquer.depth_pair import pair_from_layouts, pair_from_one, pair_from_two
from stagecraft.core.editing.edits import checked_mask
from stagecraft.core.editing.edits import replace as replace_thing
from stagecraft.core.inversion.reference_picture import paste_things
from stagecraft.core.layers.arrangement import Arrangement, arrange
from stagecraft.core.layers.layered_image import Layer, LayeredImage
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.masks import inside_of, largest_components, outer_box
from stagecraft.core.layout.preview import draw_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.layout.variations import MIRRORS, RegionEdit, edit_layout
from stagecraft.core.layout.writing import write_bounding_boxes, write_elements, write_layers
from stagecraft.core.scores.layout_score import score_picture
from stagecraft.core.scores.metrics import bleed, mask_iou, peak_in_mask
from stagecraft.core.tcig.starts import outside_regions
from torch import Tensor

SIDE = 64
DUST = 1 / 255
NOISE = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))


def mask_of(highest: float, dust: float) -> Tensor:
    """A thing in its box, and what a picture's compression leaves around it."""
    mask = torch.full((SIDE, SIDE), dust)
    mask[24:28, 10:26] = highest
    return mask


def layout_of(mask: Tensor) -> Layout:
    return Layout(SIDE, SIDE, "", "", (Region("a dog", mask=mask),))


def moved(mask: Tensor, **edit: object) -> list[bool]:
    region = edit_layout(layout_of(mask), "", RegionEdit(**edit)).regions[0]
    return inside_of(region.mask).tolist()


def places_of_layers(mask: Tensor) -> list[float]:
    (layer,) = write_layers(layout_of(mask), {})["layers"]
    return [layer[key] for key in "xywh"]


def middle_when_turned(mask: Tensor) -> list[bool]:
    layer = Layer(NOISE, mask[None], "dog")
    image = arrange(LayeredImage(NOISE, [layer]), [Arrangement("dog", turn=90)])
    return inside_of(image.layers[0].alpha[0]).tolist()


def scores(mask: Tensor) -> list[object]:
    probabilities = torch.stack([1 - mask_of(1, 0), mask_of(1, 0)])
    (score,) = score_picture(probabilities, ("background", "dog"), layout_of(mask), [0.1])
    return [score.asked_box, score.box_iou, score.bleed, score.present]


def heat(mask: Tensor) -> list[float]:
    return draw_heat_map(NOISE[0], torch.ones(4, 4), "dog", [mask]).tolist()


def pasted_box(mask: Tensor) -> tuple[float, ...] | None:
    paper, picture = torch.zeros(SIDE, SIDE, 3), torch.ones(8, 8, 3)
    layout = Layout(SIDE, SIDE, "", "", (Region("a dog", box=(0, 0, 0.5, 0.5)),))
    return outer_box(paste_things(paper, layout, [picture], [mask[22:30, 12:20]])[..., 0])


SEEN: dict[str, Callable[[Tensor], object]] = {
    "box": outer_box,
    "region's box": lambda mask: Region("a dog", mask=mask).outer_box(),
    "largest piece": lambda mask: largest_components(mask)[0].tolist(),
    "boxes": lambda mask: write_bounding_boxes(layout_of(mask)),
    "elements": lambda mask: write_elements(layout_of(mask)),
    "layers": places_of_layers,
    "moved": lambda mask: moved(mask, right=0.25, down=0.125),
    "scaled": lambda mask: moved(mask, scale=2.0),
    "mirrored": lambda mask: moved(mask, mirror=MIRRORS[1]),
    "replaced": lambda mask: replace_thing(mask, "a cat", whole_box=True).region.box,
    "layer turned": middle_when_turned,
    "scores": scores,
    "mask IoU": lambda mask: mask_iou(mask, mask_of(1, 0)),
    "bleed": lambda mask: bleed(mask_of(1, 0), mask),
    "peak": lambda mask: peak_in_mask(torch.eye(SIDE), mask),
    "heat map": heat,
    "depth of a picture": lambda mask: pair_from_one(NOISE[None, ..., 0], mask[None, None]).mask.tolist(),
    "depth of two": lambda mask: pair_from_two(NOISE[None, ..., 0], None, mask[None, None]).mask.tolist(),
    "depth of a layout": lambda mask: pair_from_layouts([layout_of(mask)], 1).mask.tolist(),
    "reference": pasted_box,
    "free cells of a draft": lambda mask: outside_regions(layout_of(mask), SIDE, SIDE, 8).tolist(),
}


@pytest.mark.parametrize("see", SEEN.values(), ids=SEEN)
@pytest.mark.parametrize(("highest", "dust"), [(1.0, DUST), (0.4, DUST), (0.1, DUST)])
def test_dust_and_faintness_change_no_box(see, highest, dust):
    assert see(mask_of(highest, dust)) == see(mask_of(1.0, 0.0))


def test_the_outline_in_a_drawing_keeps_its_place():
    faint = draw_layout(layout_of(mask_of(1.0, DUST)))
    assert (faint - draw_layout(layout_of(mask_of(1.0, 0.0)))).abs().max() < 0.01


@pytest.mark.parametrize("highest", [0.0, DUST, 0.06])
def test_a_mask_of_dust_is_empty(highest):
    with pytest.raises(LayoutError, match="empty mask"):
        layout_of(mask_of(highest, 0.0))
    with pytest.raises(ValueError, match="empty mask"):
        checked_mask(mask_of(highest, 0.0), "Removing")
    assert outer_box(mask_of(highest, 0.0)) is None


def test_weights_stay_soft():
    soft = torch.linspace(0, 0.9, SIDE).expand(SIDE, SIDE).contiguous()
    layout = layout_of(soft)
    assert torch.equal(layout.masks(SIDE, SIDE)[0], soft)
    assert torch.allclose(layout.visible_masks(SIDE, SIDE)[1], soft)
    (layer,) = write_layers(layout, {})["layers"]
    place = slice(layer["x"], layer["x"] + layer["w"])
    assert np.allclose(1 - layer["mask"][0], soft[:, place], atol=1e-6)
    assert soft[:, : layer["x"]].max() < 0.9 / 16  # what a layer's cut leaves away is dust
