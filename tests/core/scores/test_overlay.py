"""Scores of pictures that are hard to score, and drawings of odd sizes."""

import pytest
import torch
from stagecraft.core.drawing.plates import LARGEST_ENLARGED
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.scores.overlay import score_and_draw
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.segmenter import Segmenter

CLASSES = ("person", "apple")


class Everywhere(Segmenter):
    """Finds the first class in every pixel."""

    certainty = 1.0

    def probabilities(self, images):
        found = torch.zeros(len(images), len(CLASSES), *images.shape[1:3])
        found[:, 0] = self.certainty
        return found


class Broken(Everywhere):
    certainty = float("nan")


JUDGE = Everywhere(None, CLASSES)


def layout(height=64, width=64, **region):
    region = {"phrase": "a person", "box": (0.0, 0.0, 1.0, 1.0)} | region
    return Layout(width=width, height=height, prompt="", background="", regions=(Region(**region),))


def test_pictures_with_alpha_are_scored_by_their_colours():
    scores, drawn = score_and_draw(torch.full((64, 64, 4), 0.5), layout(), JUDGE)
    assert scores[0].box_iou == 1 and drawn.shape == (512, 512, 3)


def test_nothing_is_found_in_pictures_that_are_no_numbers():
    """The likeliest class of NaN would be the first one, so that a person might be found everywhere."""
    with pytest.raises(LayoutError, match="not finite numbers"):
        score_and_draw(torch.full((64, 64, 3), float("nan")), layout(), JUDGE)
    with pytest.raises(SegmenterError, match="Copy its folder again"):
        score_and_draw(torch.zeros(64, 64, 3), layout(), Broken(None, CLASSES))


@pytest.mark.parametrize("mask", [torch.eye(1088), torch.eye(2048)])
def test_masks_without_a_place_are_refused(mask):
    with pytest.raises(LayoutError, match='"a person" is empty at 64 x 64'):
        score_and_draw(torch.zeros(64, 64, 3), layout(box=None, mask=mask), JUDGE)


def test_a_strip_is_not_enlarged_beyond_all_bounds():
    _, drawn = score_and_draw(torch.zeros(16, 3000, 3), layout(16, 3000), JUDGE)
    assert max(drawn.shape) <= LARGEST_ENLARGED
