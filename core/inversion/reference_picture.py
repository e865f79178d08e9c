"""Reference pictures for start latents that know a layout (SALI, arXiv 2401.16157).

SALI starts a run from the inversion of a picture that has something like each thing in its place. How the authors make
that picture is not in any readable source; here things are cut out of pictures of their own, scaled to their boxes and
pasted on a background in painter's order.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy import ndimage
from torch import Tensor

from ..drawing.resizing import resized
from ..layout.layout import Layout
from ..layout.masks import Box, inside_of, largest_components, outer_box
from ..layout.region import Region

# reconstructed: the background without a picture of its own. A plain one leaves too little noise in the inverted latent
# (arXiv 2410.23530), and white is what SALI's authors warn of; so mid-grey with noise of several sizes, whose coarse
# part survives an autoencoder.
GREY = 0.5
OCTAVES = (1, 8, 32)  # pixels
DEVIATION = 0.12  # of the sum, in 0..1
# reconstructed: from where on a map of likelihoods is the thing: half-way from its lowest to its highest value.
RELATIVE_THRESHOLD = 0.5


def textured_grey(height: int, width: int, seed: int) -> Tensor:
    """Mid-grey with noise of several sizes, (height width 3) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for size in OCTAVES:
        cells = torch.randn(1, 3, -(-height // size), -(-width // size), generator=generator)
        total += F.interpolate(cells, (height, width), mode="bilinear", align_corners=False)
    noise = total / total.std() * DEVIATION
    return rearrange((GREY + noise).clamp(0, 1), "1 c h w -> h w c")


def thing_in(likelihood: Tensor) -> Tensor:
    """Where a thing is: the largest connected part of a map above the middle between its lowest and highest value.

    Args:
        likelihood: (h w), of any range; what is highest is the thing.

    Returns:
        float32 (h w) of 0 and 1; at least one pixel is 1.
    """
    low, high = likelihood.aminmax()
    inside = likelihood >= low + RELATIVE_THRESHOLD * (high - low)
    return torch.from_numpy(largest_components(inside)[0]).float()


def paste_things(background: Tensor, layout: Layout, pictures: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """Cut things out of their pictures and paste each into its region, in painter's order.

    A thing is stretched to its region's box, so that its outline touches the box on all sides. A region with a mask is
    filled to its outline: where the thing does not reach, its nearest colours go on. A region of strength 0 is left
    out.

    Args:
        background: (h w 3) in 0..1, the canvas.
        layout: where things go.
        pictures: one for each region in painter's order, (h' w' 3) in 0..1 of any size.
        masks: where in these the thing is, (h' w') in 0..1, not empty.

    Returns:
        (h w 3).
    """
    canvas = background.clone()
    for region, picture, mask in zip(layout.sorted_regions(), pictures, masks, strict=True):
        if region.strength != 0:
            _paste(canvas, region, picture, mask)
    return canvas


def _paste(canvas: Tensor, region: Region, picture: Tensor, mask: Tensor) -> None:
    height, width = canvas.shape[:2]
    rows, columns = _window(outer_box(mask), *mask.shape)
    picture, mask = picture[rows, columns, :3].float(), mask[rows, columns].float()
    if region.mask is not None:
        alpha = region.mask_on(height, width)
        into = _window(outer_box(alpha), height, width)
        alpha = alpha[into]
    else:
        into = _window(region.box, height, width)
        alpha = None
    size = tuple(place.stop - place.start for place in into)
    # The thing's colours alone are scaled, so that none of what was around it comes along at its edge.
    picture = _scaled(_continued(picture, mask), size)
    alpha = _scaled(mask[..., None], size)[..., 0].clamp(0, 1) if alpha is None else alpha
    window = canvas[into]
    window.copy_(torch.lerp(window, picture, alpha[..., None]))


def _window(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box, at least one of each."""
    x0, y0, x1, y1 = box
    return _pixels(y0, y1, height), _pixels(x0, x1, width)


def _pixels(start: float, end: float, size: int) -> slice:
    first = min(round(start * size), size - 1)
    return slice(first, max(round(end * size), first + 1))


def _scaled(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(h w c) -> (*size c)."""
    planes = rearrange(picture, "h w c -> 1 c h w")
    return rearrange(resized(planes, size), "1 c h w -> h w c")


def _continued(picture: Tensor, mask: Tensor) -> Tensor:
    """Fill what lies outside a thing with its nearest colours: (h w 3)."""
    outside = ~inside_of(mask).numpy()
    rows, columns = ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)
    return torch.from_numpy(np.ascontiguousarray(picture.numpy()[rows, columns]))
