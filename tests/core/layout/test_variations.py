"""Variations of a layout: moved, scaled, mirrored, restyled and renamed."""

import pytest
import torch
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.layout.variations import MIRRORS, RegionEdit, edit_layout


def test_identity_is_bit_for_bit():
    mask = torch.rand(16, 16)
    layout = Layout(64, 64, "", "", (Region("a dog", (0.1, 0.2, 0.3, 0.4), mask), Region("a cat", (0, 0, 1 / 3, 1))))
    assert edit_layout(layout, "", RegionEdit()) == layout


def test_boxes_and_masks_move_alike():
    box = (0.25, 0.125, 0.5, 0.375)
    mask = Region("a dog", box).mask_on(32, 32)
    for edit in (
        RegionEdit(right=0.25, down=-0.125),
        RegionEdit(right=0.75),
        RegionEdit(scale=2.0),
        RegionEdit(scale=0.5),
        *(RegionEdit(mirror=mirror, right=0.125) for mirror in MIRRORS),
    ):
        both = Layout(64, 64, "", "", (Region("a dog", box, mask),))
        if edit.right == 0.75:
            with pytest.raises(LayoutError, match="Nothing of the region"):
                edit_layout(both, "a dog", RegionEdit(right=0.76))
            edit = RegionEdit(right=0.625)
        (moved,) = edit_layout(both, "A DOG ", edit).regions
        assert torch.equal(moved.mask, Region("a dog", moved.box).mask_on(32, 32)), edit


def test_a_mirrored_mask_is_mirrored():
    mask = torch.zeros(32, 32)
    mask[4:12, 4:20] = torch.rand(8, 16).round()
    mask[4, 4] = mask[11, 19] = 1
    layout = Layout(64, 64, "", "", (Region("a dog", mask=mask),))
    (itself,) = edit_layout(layout, "1", RegionEdit(mirror=MIRRORS[1])).regions
    assert torch.equal(itself.mask[4:12, 4:20], mask[4:12, 4:20].flip(1)) and itself.mask.sum() == mask.sum()
    (canvas,) = edit_layout(layout, "1", RegionEdit(mirror=MIRRORS[4])).regions
    assert torch.equal(canvas.mask, mask.flip(0))


def test_restyling():
    layout = parse_layout("a dog: 0 0 1 1 | colour=red | strength=2\na cat: 0 0 1 1", prompt="A dog and a cat")
    edit = RegionEdit(nearer=3, stronger=0.5, phrase="a fox", prompt="a red fox", colour="none")
    fox, cat = edit_layout(layout, "a dog", edit).regions
    assert fox == Region("a fox", (0, 0, 1, 1), None, "a red fox", 1.0, 3, "")
    assert cat == layout.regions[1]
    assert edit_layout(layout, "a dog", edit).prompt == "a fox and a cat"
    with pytest.raises(LayoutError, match='no region "a dgo". Did you mean "a dog"'):
        edit_layout(layout, "a dgo", edit)
    for bad in (RegionEdit(scale=0), RegionEdit(mirror="both"), RegionEdit(colour="oragne")):
        with pytest.raises(LayoutError):
            edit_layout(layout, "", bad)


@pytest.mark.parametrize(
    ("phrases", "name", "prompt", "renamed"),
    [
        (["a cat"], "", "a cat and a caterpillar", "a dog and a caterpillar"),
        (["cat"], "", "concat, Cat-like cats: cat", "concat, a dog-like cats: a dog"),
        (["a cat", "a cat on a mat"], "", "a cat on a mat, a cat", "a dog, a dog"),
        (["a cat", "dog"], "", "a cat", "a dog"),  # the new name is not renamed again
        ([" a cat "], "1", "a cat sits", "a dog sits"),
        (["c++ (cat)"], "", "a c++ (cat).", "a a dog."),
        (["猫", "고양이"], "", "一只猫和고양이와", "一只a dog和a dog와"),  # written without spaces between words
    ],
)
def test_a_new_name_takes_the_place_of_whole_words(phrases, name, prompt, renamed):
    layout = Layout(64, 64, prompt, "", tuple(Region(phrase, (0, 0, 1, 1)) for phrase in phrases))
    assert edit_layout(layout, name, RegionEdit(phrase="a dog")).prompt == renamed
