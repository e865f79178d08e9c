"""Pictures in layers: the composite against closed forms on tiny RGBA fixtures, and ComfyUI's stacks of layers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layers.layered_image import (
    BACKGROUND,
    Layer,
    LayeredImage,
    LayeredImageError,
    from_layers,
    join_pictures,
    to_layers,
)
from stagecraft.core.layers.placing import Place, placed
from stagecraft.core.layout.region import LayoutError

ONE_STEP = 1 / 255  # of 8 bits


def plain(colour, height=2, width=2):
    """A picture of one colour, (1 h w 3)."""
    return torch.tensor(colour).float().expand(1, height, width, 3).clone()


def layer(colour, alpha, name="", height=2, width=2, visible=True):
    return Layer(plain(colour, height, width), torch.full((1, height, width), float(alpha)), name, visible)


def noisy(layers=3, batch=2, height=5, width=7, seed=0):
    """Layers of random colours and opacities, some of them exactly 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(layers + 1, batch, height, width, 4, generator=generator)
    alpha = (values[..., 3] * 2 - 0.5).clamp(0, 1)
    return LayeredImage(
        values[0, ..., :3], [Layer(values[i, ..., :3], alpha[i], f"layer {i}") for i in range(1, layers + 1)]
    )


# --- the composite ---


def test_one_layer_is_the_papers_equation():
    """Half red over blue is (0.5, 0, 0.5) with straight colours; multiplied ones would give (0.25, 0, 0.5)."""
    found = LayeredImage(plain((0, 0, 1)), [layer((1, 0, 0), 0.5)]).composite()
    torch.testing.assert_close(found, plain((0.5, 0, 0.5)))


def test_painters_order_in_closed_form():
    """White over half green over quarter red on black, pixel by pixel from the formula."""
    image = LayeredImage(plain((0, 0, 0)), [layer((1, 0, 0), 0.25), layer((0, 1, 0), 0.5), layer((1, 1, 1), 0.2)])
    red = 0.8 * 0.5 * 0.25 + 0.2
    green = 0.8 * 0.5 + 0.2
    torch.testing.assert_close(image.composite(), plain((red, green, 0.2)))
    torch.testing.assert_close(image.alpha(), torch.full((1, 2, 2), 1 - 0.75 * 0.5 * 0.8))
    swapped = LayeredImage(image.background, image.layers[::-1]).composite()
    assert (swapped - image.composite()).abs().max() > 0.1


def test_opacity_0_and_1_copy_bit_for_bit():
    image = noisy(1)
    (top,) = image.layers
    clear, solid = torch.zeros_like(top.alpha), torch.ones_like(top.alpha)
    assert torch.equal(LayeredImage(image.background, [Layer(top.colour, clear)]).composite(), image.background)
    assert torch.equal(LayeredImage(image.background, [Layer(top.colour, solid)]).composite(), top.colour)
    assert torch.equal(LayeredImage(image.background).composite(), image.background)


def test_what_is_seen_of_the_layers_adds_up_to_the_composite():
    image = noisy()
    seen = image.visible_masks()
    rest = 1 - seen.sum(0)
    torch.testing.assert_close(rest, 1 - image.alpha())
    total = image.background * rest[..., None]
    for mask, each in zip(seen, image.layers, strict=True):
        total = total + mask[..., None] * each.colour
    torch.testing.assert_close(total, image.composite())


def test_hidden_layers_take_no_part():
    image = noisy()
    first, second, third = image.layers
    hidden = image.with_layer(1, Layer(second.colour, second.alpha, second.name, visible=False))
    assert torch.equal(hidden.composite(), LayeredImage(image.background, [first, third]).composite())
    assert torch.equal(hidden.alpha(), LayeredImage(image.background, [first, third]).alpha())
    assert hidden.visible_masks()[1].max() == 0 and len(hidden.layers) == 3


def test_pictures_of_a_batch_and_back():
    image = noisy(batch=3)
    singles = image.pictures()
    assert [len(each.background) for each in singles] == [1, 1, 1]
    assert torch.equal(join_pictures(singles).composite(), image.composite())
    assert torch.equal(singles[2].composite(), image.composite()[2:])
    with pytest.raises(LayeredImageError, match=r"\[3, 2\] layers cannot be one batch"):
        join_pictures([singles[0], LayeredImage(singles[1].background, singles[1].layers[:2])])


@pytest.mark.parametrize(
    ("colour", "alpha"), [((1, 2, 2, 4), (1, 2, 2)), ((1, 2, 2, 3), (1, 2, 3)), ((2, 2, 3), (2, 2))]
)
def test_layers_of_wrong_shapes_are_refused(colour, alpha):
    with pytest.raises(LayeredImageError, match=r'The layer "dog" has a colour of \('):
        Layer(torch.zeros(colour), torch.zeros(alpha), "dog")


def test_layers_of_another_size_than_the_background_are_refused():
    with pytest.raises(LayeredImageError, match=r"expected the same size and number of pictures"):
        LayeredImage(plain((0, 0, 0)), [layer((0, 0, 0), 1, height=3)])
    with pytest.raises(LayeredImageError, match=r"The background is \(2, 2, 3\)"):
        LayeredImage(torch.zeros(2, 2, 3))


# --- ComfyUI's stacks of layers ---


def test_a_stack_reads_back_as_what_was_written():
    image = noisy()
    hidden = image.with_layer(1, Layer(image.layers[1].colour, image.layers[1].alpha, "cat", visible=False))
    stacks = to_layers(hidden)
    assert len(stacks) == 2
    found = join_pictures([from_layers(stack) for stack in stacks])
    assert torch.equal(found.background, image.background)
    assert [(each.name, each.visible) for each in found.layers] == [
        ("layer 1", True),
        ("cat", False),
        ("layer 3", True),
    ]
    for read, written in zip(found.layers, hidden.layers, strict=True):
        assert torch.equal(read.colour, written.colour)
        torch.testing.assert_close(read.alpha, written.alpha, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.composite(), hidden.composite())


def test_a_stack_has_comfyuis_keys_and_its_mask_is_1_where_transparent():
    (stack,) = to_layers(LayeredImage(plain((1, 1, 1)), [layer((1, 0, 0), 0.25, "dog")]))
    assert stack["version"] == 1 and stack["canvas"] == (2, 2)
    ground, dog = stack["layers"]
    assert ground["name"] == BACKGROUND and "mask" not in ground
    expected = {"type": "raster", "x": 0, "y": 0, "w": 2, "h": 2, "name": "dog", "z_index": 1}
    assert {key: dog[key] for key in expected} == expected
    torch.testing.assert_close(dog["mask"], torch.full((1, 2, 2), 0.75))


def item(colour, **keys):
    return {"image": plain(colour, 4, 4), "type": "raster"} | keys


def test_order_opacity_masks_and_frames():
    clear = torch.zeros(1, 4, 4)
    clear[:, :, :2] = 1
    both = torch.cat([plain((0, 1, 0), 4, 4), plain((0, 0, 1), 4, 4)])
    document = {
        "layers": [
            item((1, 0, 0), z_index=5, mask=clear, opacity=0.5, name="dog"),
            item((1, 1, 1), z_index=-1),
            {"image": both, "type": "raster", "z_index": 2, "name": "pair", "mask": torch.ones(1, 2, 2)},
        ]
    }
    image = from_layers(document)
    assert torch.equal(image.background, plain((1, 1, 1), 4, 4))
    assert [each.name for each in image.layers] == ["pair", "pair 2", "dog"]
    assert [float(each.alpha.max()) for each in image.layers] == [0, 0, 0.5]
    found = image.composite()
    assert torch.equal(found[:, :, :2], plain((1, 1, 1), 4, 2))
    torch.testing.assert_close(found[:, :, 2:], plain((1, 0.5, 0.5), 4, 2))


def test_without_an_opaque_lowest_layer_the_background_is_white():
    image = from_layers({"canvas": (8, 6), "layers": [item((1, 0, 0), x=2, y=1)]})
    assert torch.equal(image.background, torch.ones(1, 6, 8, 3))
    expected = torch.zeros(1, 6, 8)
    expected[:, 1:5, 2:6] = 1
    assert torch.equal(image.layers[0].alpha, expected)
    four = torch.cat([plain((1, 0, 0), 4, 4), torch.full((1, 4, 4, 1), 0.5)], -1)
    assert from_layers({"layers": [{"image": four}]}).layers[0].alpha.unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("layers", "is no stack of layers"),
        ({"version": 2, "layers": [item((0, 0, 0))]}, "version 2; expected 1"),
        ({"layers": []}, "hold no picture"),
        ({"layers": [{"image": torch.zeros(0, 4, 4, 3)}]}, "hold no picture"),
        ({"layers": [item((0, 0, 0), blend_mode="multiply", name="fog")]}, 'layer "fog" has the blend mode'),
        ({"layers": [{"image": torch.zeros(1, 4, 4, 2)}]}, r"picture of \(1, 4, 4, 2\)"),
        ({"layers": [{"image": torch.zeros(257, 2, 2, 3)}]}, "257 layers are connected; at most 256"),
        ({"layers": [item((0, 0, 0), mask=torch.zeros(3, 4, 4))]}, "1 pictures and 3 masks"),
        ({"canvas": (20000, 20), "layers": [item((0, 0, 0))]}, "at most 16384 a side"),
    ],
)
def test_stacks_that_cannot_be_read_are_refused(document, message):
    with pytest.raises(LayeredImageError, match=message):
        from_layers(document)


def test_a_place_that_is_no_number_is_refused():
    with pytest.raises(LayoutError, match='"rotation"'):
        from_layers({"layers": [item((0, 0, 0), rotation="left")]})


# --- placing one layer ---


@settings(deadline=None, max_examples=30)
@given(x=st.integers(-9, 9), y=st.integers(-9, 9), flip_h=st.booleans(), flip_v=st.booleans())
def test_whole_pixels_are_copied(x, y, flip_h, flip_v):
    """Against a loop over all pixels."""
    rgba = torch.rand(4, 5, 4, generator=torch.Generator().manual_seed(3))
    found = placed(rgba, Place(x, y, flip_h=flip_h, flip_v=flip_v), 6, 7)
    for row in range(6):
        for column in range(7):
            own_row, own_column = row - y, column - x
            if 0 <= own_row < 4 and 0 <= own_column < 5:
                expected = rgba[3 - own_row if flip_v else own_row, 4 - own_column if flip_h else own_column]
                assert torch.equal(found[row, column], expected)
            else:
                assert found[row, column].abs().max() == 0


def test_a_fraction_of_a_pixel_covers_that_share():
    white = torch.ones(2, 2, 4)
    found = placed(white, Place(1.25, 1.0), 4, 5)
    torch.testing.assert_close(found[1, :, 3], torch.tensor([0, 0.75, 1, 0.25, 0]))
    assert found[0, :, 3].max() == 0
    torch.testing.assert_close(found[1, 1:4, :3], torch.ones(3, 3))


def test_enlarging_keeps_an_opaque_picture_opaque_to_its_edges():
    found = placed(torch.ones(3, 3, 4), Place(0, 0, 12, 9), 9, 12)
    torch.testing.assert_close(found, torch.ones(9, 12, 4))


def test_colours_of_transparent_pixels_never_bleed():
    """A red disc whose surroundings are green under opacity 0 stays red at every size and angle."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    inside = ((rows - 7.5) ** 2 + (columns - 7.5) ** 2 < 30).float()
    red, green = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    rgba = torch.cat([torch.where(inside[..., None] > 0, red, green), inside[..., None]], -1)
    for place in (Place(2, 2, 7, 9), Place(0.4, 0.3, 40, 40), Place(3, 3, rotation=0.7)):
        found = placed(rgba, place, 32, 32)
        seen = found[..., 3] > 0.01
        assert seen.any()
        torch.testing.assert_close(found[seen][:, :3], red.expand(int(seen.sum()), 3), atol=1e-4, rtol=0)


def test_shrinking_keeps_the_mean():
    stripes = torch.zeros(16, 16, 4)
    stripes[..., 3] = 1
    stripes[:, ::2, :3] = 1
    found = placed(stripes, Place(0, 0, 4, 4), 4, 4)
    torch.testing.assert_close(found[:, 1:3, :3], torch.full((4, 2, 3), 0.5), atol=0.02, rtol=0)


def test_a_quarter_turn_is_clockwise():
    rgba = torch.ones(4, 4, 4)
    rgba[:, :, :3] = 0
    rgba[0, 0, :3] = 1  # the upper left corner goes to the upper right one
    found = placed(rgba, Place(2, 1, rotation=math.pi / 2), 6, 8)
    assert found[1, 5, 0] == pytest.approx(1, abs=ONE_STEP)
    assert found[..., 0].sum() == pytest.approx(1, abs=0.02)
    assert found[..., 3].sum() == pytest.approx(16, abs=0.02)


def test_a_layer_far_larger_than_the_canvas_costs_no_more_than_the_canvas():
    found = placed(torch.ones(2, 2, 4), Place(-4e8, -4e8, 8e8, 8e8), 8, 8)
    assert found.shape == (8, 8, 4)
    torch.testing.assert_close(found[..., 3], torch.ones(8, 8))
    assert placed(torch.ones(2, 2, 4), Place(1e9, 0), 8, 8)[..., 3].max() == 0
