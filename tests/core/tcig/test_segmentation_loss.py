"""TCIG's segmentation terms: who looks after what, their losses, and overlaps as Layout Score has them."""

import pytest
import torch
import torch.nn.functional as F
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.scores.layout_score import score_picture
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.tcig.segmentation_loss import make_terms, region_overlaps
from stagecraft.tests.core.tcig.colour_models import LAYOUT, SIZE, make_segmenter


@pytest.fixture(scope="module")
def layout():
    return parse_layout(LAYOUT, width=64, height=64)


def test_a_phrase_that_no_segmenter_knows_lists_the_nearest_names():
    layout = parse_layout("a frig: 0 0 0.5 1", width=64, height=64)
    with pytest.raises(SegmenterError, match="frog"):
        make_terms(layout, [make_segmenter()], [1.0], SIZE, SIZE)
    both = [make_segmenter(("background", name)) for name in ("apple", "frog")]
    with pytest.raises(SegmenterError, match="Segmenter 1: .*apple.* Segmenter 2: .*frog"):
        make_terms(layout, both, [1.0, 1.0], SIZE, SIZE)


def test_regions_of_one_name_are_one_mask_and_strength_counts():
    text = "an apple: 0 0 0.5 1 | strength=2\na red apple: 0.5 0 1 0.5\na frog: 0 0 1 1 | strength=0"
    (term,) = make_terms(parse_layout(text, width=64, height=64), [make_segmenter()], [1.0], SIZE, SIZE)
    assert term.phrases == ("an apple",) and term.members == ((0, 1),) and term.strengths == (1.5,)
    hidden = parse_layout("an apple: 0.2 0.2 0.4 0.4\na frog: 0 0 1 1", width=64, height=64)
    with pytest.raises(LayoutError, match='Nothing of the region "an apple"'):
        make_terms(hidden, [make_segmenter()], [1.0], SIZE, SIZE)
    none = parse_layout("an apple: 0 0 1 1 | strength=0", width=64, height=64)
    with pytest.raises(LayoutError, match="strength 0"):
        make_terms(none, [make_segmenter()], [1.0], SIZE, SIZE)
    with pytest.raises(LayoutError, match="empty mask"):
        Region("an apple", mask=torch.zeros(4, 4))


def test_strength_multiplies_a_region_and_losses_are_mean_squares(layout):
    segmenter = make_segmenter()
    picture = torch.rand(1, 3, SIZE, SIZE)
    found = segmenter.soft_masks(picture, ["an apple", "a frog"])[0]
    masks = F.avg_pool2d(layout.visible_masks(SIZE, SIZE)[1:], 2)
    errors = (found - masks).square().mean((1, 2))
    stronger = parse_layout(LAYOUT.replace("0.75", "0.75 | strength=3"), width=64, height=64)
    for each, strengths in ((layout, (1, 1)), (stronger, (3, 1))):
        (term,) = make_terms(each, [segmenter], [1.0], SIZE, SIZE)
        expected = (strengths[0] * errors[0] + strengths[1] * errors[1]) / 2
        torch.testing.assert_close(term.loss(picture, term.target(picture)), expected)


def test_overlaps_are_those_of_the_layout_score():
    torch.manual_seed(0)
    masks = [torch.zeros(16, 16) for _ in range(2)]
    masks[0][2:12, :9], masks[1][4:, 6:] = 1, 1
    layout = parse_layout("an apple: mask 1\na frog: mask 2", width=64, height=64, masks=masks)
    segmenter = make_segmenter()
    picture = F.interpolate(torch.rand(1, 3, 8, 8).round(), (SIZE, SIZE))
    terms = make_terms(layout, [segmenter], [1.0], SIZE, SIZE)
    probabilities = segmenter.probabilities(picture.movedim(1, -1))[0]
    scores = [score.mask_iou for score in score_picture(probabilities, segmenter.classes, layout)]
    assert region_overlaps(terms, picture) == dict(enumerate(scores)) and 0 < min(scores) < max(scores)
