"""Pictures of any channels are pictures, and numbers that are no picture are said in a sentence."""

import pytest
import torch
from stagecraft.core.drawing.pictures import check_finite, colours_of, of_picture
from stagecraft.core.drawing.plates import enlarged
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.preview import draw_layout, fit_picture
from stagecraft.core.layout.region import Region
from stagecraft.core.scores.overlay import draw_scores
from stagecraft.core.segmentation.segmenter import readable

GREY = torch.rand(1, 24, 32, 1, generator=torch.Generator().manual_seed(0))
LAYOUT = Layout(32, 24, "", "", (Region("a dog", box=(0, 0, 0.5, 1)),))
READERS = {
    "colours": colours_of,
    "enlarged": lambda image: enlarged(image[0]),
    "layout drawn": lambda image: draw_layout(LAYOUT, image),
    "fitted": lambda image: fit_picture(image, 48, 64),
    "scores": lambda image: draw_scores(image[0], [], []),
    "segmented": lambda image: readable(image[0]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_grey_pictures_are_read_as_their_colours(read):
    colours, opaque = GREY.expand(-1, -1, -1, 3), torch.ones_like(GREY)
    for image in (GREY, torch.cat([GREY, opaque], -1), torch.cat([colours, opaque], -1)):
        assert torch.equal(read(image), read(colours))


def test_numbers_that_are_no_picture_are_named():
    pictures = torch.ones(3, 4, 4, 3)
    assert check_finite(pictures, "The draft", "Make it again") is pictures
    pictures[1, 2, 3, 0] = float("inf")
    with pytest.raises(ValueError, match=r"^The draft has pixels .* in picture 2 of 3\. Make it again\.$"):
        check_finite(pictures, "The draft", "Make it again")
    with pytest.raises(ArithmeticError) as caught, of_picture(2, 3):
        raise ArithmeticError("no fault of a picture")
    assert str(caught.value) == "no fault of a picture"
    with pytest.raises(ValueError, match=r"^Picture 2 of 3: too dark$"), of_picture(2, 3):
        raise ValueError("too dark")
