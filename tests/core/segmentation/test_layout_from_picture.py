"""Layouts out of pictures, and several segmenters as one, on segmenters whose findings are known exactly."""

import pytest
import torch
from stagecraft.core.layout.prompts import with_article
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.segmentation import layout_from_picture
from stagecraft.core.segmentation import segmenter as segmentation
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.joint import join_segmenters
from stagecraft.core.segmentation.layout_from_picture import (
    Reading,
    find_regions,
    read_layout,
    read_layouts,
    read_phrases,
)
from stagecraft.core.segmentation.segmenter import Segmenter
from torch import nn

SIZE = (32, 48)
COLOURS = {"dog": (1.0, 0.0, 0.0), "apple": (0.0, 1.0, 0.0), "door; gate": (0.0, 0.0, 1.0)}


class ByColour(nn.Module):
    """A network that knows things by their colour alone; white and black are nothing."""

    def __init__(self, names):
        super().__init__()
        self.colours = nn.Parameter(torch.tensor([COLOURS[name] for name in names]), requires_grad=False)

    def forward(self, pixel_values):
        # 1 where the colour is exactly the thing's, below 0.5 on all other colours of these pictures
        distance = (pixel_values[:, None] - self.colours[..., None, None]).square().sum(2)
        things = 4 * (1 - 2 * distance)
        logits = torch.cat([torch.zeros_like(things[:, :1]), things], 1)
        return type("Output", (), {"logits": logits})


def segmenter(*names):
    return Segmenter(ByColour(names), ("background", *names), SIZE, (0.0,) * 3, (1.0,) * 3)


def picture():
    """Two dogs of different sizes, an apple that is larger than both, a speck of door."""
    image = torch.zeros(*SIZE, 3)
    for name, window in {
        "dog": [(slice(2, 10), slice(2, 12)), (slice(20, 24), slice(40, 46))],
        "apple": [(slice(12, 30), slice(5, 25))],
        "door; gate": [(slice(0, 2), slice(46, 48))],
    }.items():
        for rows, columns in window:
            image[rows, columns] = torch.tensor(COLOURS[name])
    return image


ALL = segmenter(*COLOURS)


def test_layout_has_every_piece_largest_behind():
    layout = read_layout(picture(), ALL, Reading(least_area=0.0, background="in a field"))
    assert [region.phrase for region in layout.sorted_regions()] == ["an apple", "a dog", "a dog", "a door"]
    assert (layout.width, layout.height, layout.background) == (48, 32, "in a field")
    areas = [float(region.mask.sum()) for region in layout.sorted_regions()]
    assert areas == [360, 80, 24, 4]
    first = layout.sorted_regions()[0]
    assert first.box == (5 / 48, 12 / 32, 25 / 48, 30 / 32)
    # Nothing is lost or found twice.
    assert torch.equal(layout.masks(*SIZE).sum(0), (picture().sum(-1) > 0).float())


def test_small_pieces_and_other_names_are_left_out():
    share = 24 / (32 * 48)
    found = find_regions(picture(), ALL, Reading(least_area=share))
    assert [each.phrase for each in found] == ["an apple", "a dog", "a dog"]
    assert len(find_regions(picture(), ALL, Reading(least_area=share * 1.01))) == 2
    found = find_regions(picture(), ALL, Reading(phrases=("the brown dog",), least_area=0.0, single_pieces=False))
    assert [each.phrase for each in found] == ["the brown dog"]
    assert found[0].mask.sum() == 104
    assert [each.phrase for each in find_regions(picture(), ALL, Reading(article=False))] == ["apple", "dog", "dog"]
    certain = find_regions(picture(), ALL, Reading())[0].confidence
    assert 0.9 < certain < 1
    with pytest.raises(LayoutError, match="Nothing of what the segmenter knows covers 1.0% .* Lower"):
        read_layout(picture(), ALL, Reading(least_confidence=certain + 0.01))
    with pytest.raises(LayoutError, match='Nothing of "a gate" covers'):
        read_layout(picture(), ALL, Reading(phrases=("a gate",)))


def test_pictures_and_phrases_that_cannot_be_read():
    with pytest.raises(LayoutError, match="not finite numbers"):
        read_layout(picture() * float("nan"), ALL, Reading())
    with pytest.raises(SegmenterError, match='no class for the phrase "a zebra"'):
        read_layout(picture(), ALL, Reading(phrases=("a zebra",)))


def test_a_picture_that_shows_nothing_takes_no_other_with_it():
    grey = torch.full((*SIZE, 3), 0.5)
    bad = picture() * float("nan")
    layouts, lost = read_layouts([picture(), grey, bad, picture()], 4, ALL, Reading())
    assert layouts[0] == layouts[3] == read_layout(picture(), ALL, Reading()) and layouts[1:3] == [None, None]
    assert [each.split(":")[0] for each in lost] == ["Picture 2 of 4", "Picture 3 of 4"]
    assert "Nothing of what the segmenter knows" in lost[0] and "not finite" in lost[1]
    with pytest.raises(LayoutError, match="Picture 1 of 2: Nothing"):
        read_layouts([grey, grey], 2, ALL, Reading())
    with pytest.raises(LayoutError, match=r"^Nothing"):
        read_layouts([grey], 1, ALL, Reading())


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_channels_are_read(channels):
    image = torch.zeros(*SIZE, channels)
    image[..., :3] = picture()[..., :3] if channels == 4 else 1.0
    if channels == 4:
        assert read_layout(image, ALL, Reading()) == read_layout(picture(), ALL, Reading())
        return
    with pytest.raises(LayoutError, match="Nothing of what the segmenter knows"):  # a picture, though it shows nothing
        read_layout(image, ALL, Reading())


def test_large_pictures_are_read_smaller_and_their_masks_are_large_again(monkeypatch):
    monkeypatch.setattr(segmentation, "LARGEST_READ", max(SIZE))
    large = picture().repeat_interleave(3, 0).repeat_interleave(3, 1)
    sizes = []
    read = ALL.probabilities

    class Watched(Segmenter):
        def probabilities(self, images):
            sizes.append(images.shape[1:3])
            return read(images)

    found = read_layout(large, Watched(ALL.network, ALL.classes, SIZE, (0.0,) * 3, (1.0,) * 3), Reading(least_area=0.0))
    assert sizes == [SIZE]
    expected = read_layout(picture(), ALL, Reading(least_area=0.0))
    assert (found.height, found.width) == (96, 144)
    for mine, theirs in zip(found.sorted_regions(), expected.sorted_regions(), strict=True):
        assert mine.phrase == theirs.phrase and mine.box == theirs.box
        assert torch.equal(mine.mask, theirs.mask.repeat_interleave(3, 0).repeat_interleave(3, 1))


def test_no_more_regions_than_a_layout_may_have(monkeypatch):
    monkeypatch.setattr(layout_from_picture, "MOST_REGIONS", 2)
    assert [each.phrase for each in find_regions(picture(), ALL, Reading(least_area=0.0))] == ["an apple", "a dog"]


def test_specialists_together_find_what_one_general_segmenter_finds():
    joint = join_segmenters([segmenter("dog"), segmenter("apple", "door; gate")])
    assert joint.classes == ("background", "dog", "apple", "door; gate")
    own, general = joint.probabilities(picture()[None]), ALL.probabilities(picture()[None])
    torch.testing.assert_close(own.sum(1), torch.ones(1, *SIZE))
    assert torch.equal(own.argmax(1), general.argmax(1))
    masks = joint.soft_masks(picture().movedim(-1, 0)[None], ["an apple", "two dogs"])
    assert torch.equal(masks[0, 0] > 0.5, general.argmax(1)[0] == 2)
    assert torch.equal(masks[0, 1] > 0.5, general.argmax(1)[0] == 1)
    assert joint.knows("a gate") and not joint.knows("a zebra")
    with pytest.raises(SegmenterError, match="Segmenter 1: .*zebra.*Segmenter 2: .*zebra"):
        joint.for_phrases(["a dog", "a zebra"])


def test_names_that_members_share_are_one_class():
    joint = join_segmenters([segmenter("dog", "apple"), segmenter("dog"), segmenter("door; gate")])
    assert joint.classes == ("background", "dog", "apple", "door; gate")
    asked = joint.for_phrases(["a gate", "a dog", "the dogs"])
    assert asked.classes == ("background", "door; gate", "dog", "apple")
    assert asked.class_of("dogs") == 2
    parts = [member.probabilities(picture()[None])[:, 1] for member in joint.members[:2]]
    found = asked.probabilities(picture()[None])
    on_dogs = (picture() == torch.tensor(COLOURS["dog"])).all(-1)
    torch.testing.assert_close(found[0, 2][on_dogs], torch.stack(parts).mean(0)[0][on_dogs], atol=1e-3, rtol=1e-3)
    # What is asked for does not change what is seen.
    everything = joint.probabilities(picture()[None])
    torch.testing.assert_close(found, everything[:, [0, 3, 1, 2]])
    assert join_segmenters([ALL]) is ALL


def test_phrases_out_of_text():
    assert read_phrases("a dog, an apple ,, a dog") == ("a dog", "an apple")
    assert read_phrases("a dog, sitting\nan apple\n") == ("a dog, sitting", "an apple")
    assert read_phrases(" \n") == ()
    assert [with_article(name) for name in ("apple", "dog", "Igloo")] == ["an apple", "a dog", "an Igloo"]
