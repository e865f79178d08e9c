"""Layers moved, changed, reordered and given shadows, and made of single pictures."""

import pytest
import torch
from stagecraft.core.editing.edits import shifted
from stagecraft.core.layers import arrangement as layer_arrangement
from stagecraft.core.layers.arrangement import Arrangement, ArrangementError, Shadow, arrange, read_arrangements
from stagecraft.core.layers.layered_image import Layer, LayeredImage, LayeredImageError
from stagecraft.core.layers.stacking import Picture, stack_pictures

SIZE = 40


def blob(top, left, side=8, name="", batch=1):
    """A square of noise, softly covered, on an empty canvas."""
    generator = torch.Generator().manual_seed(top * SIZE + left)
    alpha = torch.zeros(batch, SIZE, SIZE)
    alpha[:, top : top + side, left : left + side] = 0.25 + 0.75 * torch.rand(batch, side, side, generator=generator)
    return Layer(torch.rand(batch, SIZE, SIZE, 3, generator=generator) * (alpha > 0)[..., None], alpha, name)


def picture(batch=1):
    ground = torch.rand(batch, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(9))
    names = ("dog", "cat", "7")
    return LayeredImage(ground, [blob(6 + 6 * i, 8 + 5 * i, name=name, batch=batch) for i, name in enumerate(names)])


def solid(top, left, side=8):
    alpha = torch.zeros(1, SIZE, SIZE)
    alpha[:, top : top + side, left : left + side] = 1
    return LayeredImage(torch.ones(1, SIZE, SIZE, 3), [Layer(torch.ones(1, SIZE, SIZE, 3), alpha, "box")])


def middle(alpha):
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    return float((rows * alpha).sum() / alpha.sum()), float((columns * alpha).sum() / alpha.sum())


def test_nothing_asked_changes_nothing_bit_for_bit():
    image = picture(2)
    assert torch.equal(arrange(image).composite(), image.composite())
    assert arrange(image).layers == image.layers
    lines = read_arrangements("dog\n\n# a comment\n cat | right=0 | scale=1 | turn=0 | opacity=1 |")
    assert torch.equal(arrange(image, lines).composite(), image.composite())


def test_lines_are_read():
    text = "dog | right=0.1 | down=-.05 | scale=1.5 | turn=-30 | opacity=0.8 | order=9 | shadow=.4 | flip | hidden"
    (dog,) = read_arrangements(text + " | name=my puppy")
    numbers = (0.1, -0.05, 1.5, -30, 0.8, 9)  # right, down, scale, turn, opacity, order
    assert dog == Arrangement("dog", *numbers, flip_h=True, visible=False, shadow=0.4, name="my puppy")
    assert read_arrangements("2 | flip upside down | shown") == (Arrangement("2", flip_v=True, visible=True),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("| right=1", "names no layer"),
        ("dog | left=1", 'says "left=1"; expected right=, down='),
        ("dog | scal=2", 'says "scal=2".*Did you mean "scale"'),
        ("dog | hide", 'says "hide".*expected'),
        ("dog | scale=0", "scale=0; expected a number from 0.001 to 1000"),
        ("dog | opacity=1.5", "opacity=1.5; expected a number from 0 to 1"),
        ("dog | right=far", "right=far; expected a number"),
        ("dog | turn=nan", "turn=nan; expected a number"),
        ("dog | name=", 'says "name="'),
    ],
)
def test_lines_that_cannot_be_meant_are_refused(line, message):
    with pytest.raises(ArrangementError, match=message):
        read_arrangements(line)


def test_a_move_is_by_whole_pixels_and_copies_them():
    image = picture(2)
    moved = arrange(image, [Arrangement("cat", right=0.26, down=-0.1)]).layers[1]
    assert torch.equal(moved.alpha, shifted(image.layers[1].alpha, 10, -4))
    colour = image.layers[1].colour.movedim(-1, 1)
    seen = moved.alpha > 0
    assert torch.equal(moved.colour[seen], shifted(colour, 10, -4).movedim(1, -1)[seen])


@pytest.mark.parametrize(("change", "area"), [({"scale": 2.0}, 4.0), ({"scale": 0.5}, 0.25), ({"turn": 30.0}, 1.0)])
def test_scaling_and_turning_keep_the_middle_and_the_area(change, area):
    image = solid(14, 16)
    found = arrange(image, [Arrangement("box", **change)]).layers[0].alpha
    assert middle(found[0]) == pytest.approx((18, 20), abs=0.05)
    assert float(found.sum()) == pytest.approx(64 * area, rel=0.12)  # edges are half a pixel soft
    assert float(found.max()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("line", ["box | flip", "box | scale=0.5", "box | turn=180", "box | right=0.1 | down=-0.05"])
def test_a_thing_keeps_its_middle_where_its_mask_is_nowhere_quite_empty(line):
    """Masks that a network paints are sigmoids: something faint is left everywhere."""
    exact = solid(6, 20)
    faint = torch.where(exact.layers[0].alpha > 0, torch.tensor(8.0), torch.tensor(-5.0)).sigmoid()
    painted = LayeredImage(exact.background, [Layer(exact.layers[0].colour, faint, "box")])
    expected, found = (arrange(each, read_arrangements(line)).layers[0].alpha for each in (exact, painted))
    assert middle(found * (found > 0.5)) == pytest.approx(middle(expected * (expected > 0.5)), abs=0.05)
    assert found.shape == faint.shape and (found - expected).abs().max() < 0.15


def test_flipping_is_about_the_layers_own_middle():
    image = picture()
    dog = image.layers[0].alpha[:, 6:14, 8:16]
    for change, axis in (({"flip_h": True}, 2), ({"flip_v": True}, 1)):
        found = arrange(image, [Arrangement("dog", **change)]).layers[0].alpha
        assert torch.equal(found[:, 6:14, 8:16], dog.flip(axis))
        assert float(found.sum()) == pytest.approx(float(image.layers[0].alpha.sum()))


def test_order_opacity_names_and_hiding():
    image = picture()
    changes = [Arrangement("dog", order=2.5, opacity=0.5, name="puppy"), Arrangement("3", visible=False)]
    found = arrange(image, changes)
    assert [layer.name for layer in found.layers] == ["cat", "puppy", "7"]
    assert torch.equal(found.layers[1].alpha, image.layers[0].alpha * 0.5)
    dog, cat, _ = image.layers
    expected = LayeredImage(image.background, [cat, Layer(dog.colour, dog.alpha * 0.5)]).composite()
    torch.testing.assert_close(found.composite(), expected)
    again = arrange(found, [Arrangement("7", visible=True)])
    assert [layer.visible for layer in again.layers] == [True, True, True]


def test_layers_are_found_by_name_then_by_number():
    image = picture()
    assert arrange(image, [Arrangement("7", opacity=0)]).layers[2].alpha.max() == 0  # its name, though a number
    assert arrange(image, [Arrangement("DOG", opacity=0)]).layers[0].alpha.max() == 0
    with pytest.raises(
        ArrangementError, match=r'no layer "dgo"; there are: 1 "dog", 2 "cat", 3 "7". Did you mean "dog"'
    ):
        arrange(image, [Arrangement("dgo")])
    with pytest.raises(ArrangementError, match='no layer "4"'):
        arrange(image, [Arrangement("4")])
    twice = LayeredImage(image.background, [image.layers[0], image.layers[0]])
    with pytest.raises(ArrangementError, match='2 layers are called "dog", numbers 1 and 2'):
        arrange(twice, [Arrangement("dog")])


def test_a_hard_shadow_in_closed_form():
    """White on white with a half-dark shadow 4 right and 8 below: 0.5 there, 1 on the box and elsewhere."""
    image = solid(10, 10)
    found = arrange(image, shadow=Shadow(0.5, right=0.1, down=0.2, blur=0))
    assert [layer.name for layer in found.layers] == ["shadow of box", "box"]
    expected = torch.ones(1, SIZE, SIZE, 3)
    expected[:, 18:26, 14:22] = 0.5
    expected[:, 10:18, 10:18] = 1
    torch.testing.assert_close(found.composite(), expected)


def test_a_soft_shadow_keeps_its_mass_and_its_middle():
    image = solid(15, 15)
    hard, soft = (arrange(image, shadow=Shadow(0.8, 0.05, 0.1, blur)).layers[0].alpha for blur in (0, 0.04))
    assert float(soft.sum()) == pytest.approx(float(hard.sum()), rel=1e-3)
    assert middle(soft[0]) == pytest.approx(middle(hard[0]), abs=1e-3)
    assert soft.max() <= 0.8 and ((soft > 0.01) & (soft < 0.7)).sum() > 40


def test_a_wide_blur_is_the_same_on_means_of_pixels(monkeypatch):
    image, shadow = solid(12, 12), Shadow(1.0, 0.0, 0.0, 0.25)  # a deviation of 10 pixels
    found = arrange(image, shadow=shadow).layers[0].alpha
    monkeypatch.setattr(layer_arrangement, "WIDE_BLUR", 1e3)
    torch.testing.assert_close(found, arrange(image, shadow=shadow).layers[0].alpha, atol=2e-3, rtol=0.02)


def test_a_shadow_of_something_at_the_edge_is_not_cut_off():
    """What the layer shows near the canvas' edge darkens it as if the canvas went on."""
    image = solid(0, 0, side=SIZE)
    found = arrange(image, shadow=Shadow(1.0, right=0.25, down=0.0, blur=0.0)).layers[0].alpha
    assert found[0, :, :10].max() == 0 and found[0, :, 10:].min() == 1
    soft = arrange(image, shadow=Shadow(1.0, right=0.0, down=0.0, blur=0.05)).layers[0].alpha
    assert float(soft[0, 20, 20]) == pytest.approx(1, abs=1e-4)


def test_one_layer_may_have_a_shadow_of_its_own():
    found = arrange(picture(), [Arrangement("cat", shadow=0.5)])
    assert [layer.name for layer in found.layers] == ["dog", "shadow of cat", "cat", "7"]
    found = arrange(picture(), [Arrangement("cat", shadow=0.0)], Shadow(0.5))
    assert [layer.name for layer in found.layers] == ["shadow of dog", "dog", "cat", "shadow of 7", "7"]


# --- stacks of single pictures ---


def test_pictures_lie_in_the_middle_in_their_own_size():
    small = torch.rand(1, 10, 6, 4, generator=torch.Generator().manual_seed(1))
    image = stack_pictures(None, torch.zeros(1, 20, 16, 3), [Picture("picture_1", "one", small)])
    assert torch.equal(image.layers[0].rgba()[:, 5:15, 5:11], small)
    assert float(image.layers[0].alpha.sum()) == pytest.approx(float(small[..., 3].sum()))
    large = torch.rand(1, 30, 30, 3)
    image = stack_pictures(None, torch.zeros(1, 20, 16, 3), [Picture("picture_1", "one", large)])
    assert torch.equal(image.composite(), large[:, 5:25, 7:23])


def test_masks_multiply_and_uniform_ones_fit_any_size():
    four = torch.full((1, 8, 8, 4), 0.5)
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    image = stack_pictures(None, None, [Picture("picture_1", "one", four, mask)])
    assert torch.equal(image.layers[0].alpha, 0.5 * mask)
    assert torch.equal(image.background, torch.ones(1, 8, 8, 3))
    image = stack_pictures(None, None, [Picture("picture_1", "one", four[..., :3], torch.ones(1, 64, 64))])
    assert image.layers[0].alpha.min() == 1
    with pytest.raises(LayeredImageError, match="The mask of picture_1 has 9 x 3 pixels, its picture 8 x 8"):
        stack_pictures(None, None, [Picture("picture_1", "one", four, torch.rand(1, 3, 9))])


def test_layers_below_batches_and_another_background():
    below = picture()
    many = torch.rand(3, SIZE, SIZE, 3)
    ground = torch.rand(1, SIZE, SIZE, 3)
    image = stack_pictures(below, ground, [Picture("picture_1", "one", many, torch.full((1, 4, 4), 0.5))])
    assert image.composite().shape == (3, SIZE, SIZE, 3)
    assert torch.equal(image.background[1:2], ground) and len(image.layers) == 4
    assert torch.equal(image.layers[3].colour, many)
    same = stack_pictures(below, None, [])
    assert torch.equal(same.composite(), below.composite())
    with pytest.raises(LayeredImageError, match="has 2 pictures, another input has 3"):
        stack_pictures(None, torch.rand(2, SIZE, SIZE, 3), [Picture("picture_1", "one", many)])
    with pytest.raises(LayeredImageError, match="background has 8 x 8 pixels, the layers' canvas 40 x 40"):
        stack_pictures(below, torch.rand(1, 8, 8, 3), [])
    with pytest.raises(LayeredImageError, match="Nothing is connected"):
        stack_pictures(None, None, [])


def test_one_picture_with_several_masks_and_pictures_of_one_channel():
    masks = torch.zeros(3, SIZE, SIZE)
    masks[1, 5:9], masks[2] = 1, 1
    grey = torch.full((1, SIZE, SIZE, 1), 0.25)
    found = stack_pictures(None, None, [Picture("picture_1", "a", grey, masks)])
    assert torch.equal(found.layers[0].alpha, masks) and found.background.shape == (3, SIZE, SIZE, 3)
    assert torch.equal(found.layers[0].colour[2], torch.full((SIZE, SIZE, 3), 0.25))


def test_nan_under_full_transparency_stays_out_of_the_picture():
    """Programs that divide colours by opacity leave 0 / 0 there."""
    colour = torch.full((1, SIZE, SIZE, 4), float("nan"))
    colour[..., 3] = 0
    colour[:, 10:20, 10:20] = torch.tensor([0.5, 0.5, 0.5, 1])
    found = stack_pictures(None, None, [Picture("picture_1", "a", colour)])
    assert found.composite().isfinite().all() and float(found.layers[0].alpha.sum()) == 100


def test_a_background_that_can_be_seen_through_is_refused():
    clear = torch.zeros(1, SIZE, SIZE, 4)
    with pytest.raises(LayeredImageError, match="background can be seen through"):
        stack_pictures(None, clear, [])
    clear[..., 3] = 1
    assert torch.equal(stack_pictures(None, clear, []).composite(), clear[..., :3])
