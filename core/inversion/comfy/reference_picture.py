"""Draws a layout's reference picture with ComfyUI's own sampling: things, what is cut out of them, a background."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...comfy.captions import embed_captions
from ...comfy.guider import Prompts, plain_guider
from ...comfy.types import Callback
from ...drawing.pictures import PAINTED_NAN, check_finite, colours_of
from ...drawing.resizing import resized
from ...layout.layout import Layout
from ...layout.masks import is_empty
from ...layout.prompts import fill_prompt
from ...layout.region import Region
from ...segmentation.segmenter import Segmenter
from ..reference_picture import paste_things, textured_grey
from .cut_out_things import SMALLEST_SHARE, Checkpoint, check_cut_outs, cut_out, own_cut_out
from .start import falling_levels

DRAWN, GREY, WHITE = "drawn", "grey noise", "white"
BACKGROUNDS = (DRAWN, GREY, WHITE)
# reconstructed: a drawn thing that the segmenter hardly sees is drawn again with other noise, so often at most, and
# what it sees best is taken.
DRAWINGS = 3
SURE = 0.5  # likelihood of a thing in a drawing from which on no other is made

Watch = Callable[[], Callback]  # gives the callback of the next run


@dataclass(frozen=True)
class Drawing:
    """How things and backgrounds are drawn.

    Attributes:
        object_prompt: may hold {phrase}, {background} and {prompt}.
        background: one of `BACKGROUNDS`.
        steps: of each drawing.
        cfg: of each drawing.
        scheduler: of each drawing.
        segmenter: cuts the things out; None takes the checkpoint's own attention to the phrase.
    """

    object_prompt: str
    background: str
    steps: int
    cfg: float
    scheduler: str
    segmenter: Segmenter | None


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """Pictures in place of drawn ones.

    Attributes:
        images: (n h w 3 or 4), one for each region, painter's order; with four channels the last cuts out.
        masks: (n h w), where the things are in `images`.
        background: (1 h w 3).
    """

    images: Tensor | None = None
    masks: Tensor | None = None
    background: Tensor | None = None


NONE_GIVEN = GivenPictures()


def count_drawings(layout: Layout, drawing: Drawing, given: GivenPictures = NONE_GIVEN) -> int:
    """How many pictures are drawn for one reference if each succeeds at once."""
    asked_for = [region for region in layout.regions if region.strength != 0 and not region.reference]
    things = len(asked_for) if given.images is None else 0
    return things + int(_is_background_drawn(layout, drawing, given.background))


def make_reference(
    checkpoint: Checkpoint,
    layout: Layout,
    drawing: Drawing,
    seed: int,
    watch: Watch,
    *,
    own: Mapping[str, Tensor],
    given: GivenPictures = NONE_GIVEN,
) -> Tensor:
    """Make a picture with something like each thing of a layout in its place.

    A region's thing is taken from its own reference picture, else from the given images, else it is drawn.

    Args:
        checkpoint: draws what is not given.
        layout: what goes where.
        drawing: how things are drawn and cut out.
        seed: of the first drawing's noise; each has its own.
        watch: asked for a callback before each drawing.
        own: (h w 4) for each region's `reference`; one that is not opaque everywhere is cut out already.
        given: pictures in place of drawn ones.

    Returns:
        (h w 3) in 0..1, of the canvas' size.

    Raises:
        ValueError: another number of images or masks, or a thing that cannot be cut out.
    """
    regions = layout.sorted_regions()
    _check_given(regions, given)
    found = [_given_thing(region, number, own, given) for number, region in enumerate(regions)]
    uncut = [
        region
        for region, thing in zip(regions, found, strict=True)
        if region.strength != 0 and (thing is None or (thing[1] is None and thing[0].shape[-1] != 4))
    ]
    check_cut_outs(checkpoint.model, drawing.segmenter, uncut)
    pictures, cut = [], []
    for number, (region, thing) in enumerate(zip(regions, found, strict=True)):
        if region.strength == 0:
            picture, mask = torch.zeros(1, 1, 3), torch.ones(1, 1)  # never pasted
        elif thing is not None:
            picture, mask = thing[0], _given_mask(checkpoint, drawing.segmenter, region, *thing)
        else:
            first = later_seed(seed, DRAWINGS * number)
            picture, mask = _draw_thing(checkpoint, layout, region, drawing, first, watch)
        pictures.append(colours_of(picture))
        cut.append(mask)
    last = later_seed(seed, DRAWINGS * len(regions))
    canvas = _background(checkpoint, layout, drawing, given.background, last, watch)
    return paste_things(canvas, layout, pictures, cut)


def _given_thing(
    region: Region, number: int, own: Mapping[str, Tensor], given: GivenPictures
) -> tuple[Tensor, Tensor | None] | None:
    """Picture of a region's thing, (h w 3 or 4), and its mask, (h w), where there are any."""
    if region.reference:
        picture = own[region.reference]
        return (picture if picture[..., 3].min() < 1 else picture[..., :3]), None
    if given.images is None:
        return None
    images = check_finite(given.images, "images", "Connect pictures that show something")
    return images[number].float().cpu(), None if given.masks is None else given.masks[number]


def _check_given(regions: Sequence[Region], given: GivenPictures) -> None:
    count, images, masks = len(regions), given.images, given.masks
    if images is None and masks is not None:
        raise ValueError(
            "Masks are connected without images; they say where the things are in the images. Connect images too, or "
            "give the layout's regions the masks."
        )
    for name, each in (("images", images), ("masks", masks)):
        if each is not None and len(each) != count:
            raise ValueError(
                f"{len(each)} {name} are connected for {count} regions. Connect a batch with one for each region, "
                "farthest first."
            )
    for number, mask in enumerate(masks if masks is not None else ()):
        if is_empty(mask) and not regions[number].reference:
            raise ValueError(f'Mask {number + 1}, of "{regions[number].phrase}", is empty. Paint the thing.')


def _given_mask(
    checkpoint: Checkpoint, segmenter: Segmenter | None, region: Region, picture: Tensor, mask: Tensor | None
) -> Tensor:
    if mask is None and picture.shape[-1] == 4:
        mask = picture[..., 3]
        if is_empty(mask):
            what = "reference picture" if region.reference else "image"
            raise ValueError(f'The {what} of "{region.phrase}" is transparent everywhere. Give one that shows it.')
    if mask is not None:
        mask = mask.float().cpu()
        if mask.shape != picture.shape[:2]:
            raise ValueError(
                f'The mask of "{region.phrase}" is {mask.shape[1]} x {mask.shape[0]} pixels, but its image is '
                f"{picture.shape[1]} x {picture.shape[0]}. Give both one size."
            )
        return mask
    found, _ = cut_out(checkpoint, segmenter, region, picture)
    if found is None:
        raise ValueError(
            f'The segmenter does not find "{region.phrase}" in its picture. To cut it out yourself, '
            f"{own_cut_out(region)}, or disconnect the segmenter."
        )
    return found


def _draw_thing(
    checkpoint: Checkpoint, layout: Layout, region: Region, drawing: Drawing, seed: int, watch: Watch
) -> tuple[Tensor, Tensor]:
    """Picture and mask of the drawing that shows the thing best: (h w 3) and (h w)."""
    prompt = fill_prompt(drawing.object_prompt, layout, region, "object prompt")
    best: tuple[float, Tensor, Tensor] | None = None
    for attempt in range(DRAWINGS):
        picture = _draw(checkpoint, layout, prompt, drawing, later_seed(seed, attempt), watch())
        mask, sureness = cut_out(checkpoint, drawing.segmenter, region, picture)
        if mask is not None and (best is None or sureness > best[0]):
            best = sureness, picture, mask
        if best is not None and best[0] >= SURE and best[2].mean() >= SMALLEST_SHARE:
            break
    if best is None:
        raise ValueError(
            f'In {DRAWINGS} pictures of "{prompt}" the segmenter finds no "{region.phrase}". Change the object prompt '
            "or the seed, connect images, or disconnect the segmenter."
        )
    return best[1], best[2]


def _background(
    checkpoint: Checkpoint, layout: Layout, drawing: Drawing, given: Tensor | None, seed: int, watch: Watch
) -> Tensor:
    height, width = layout.height, layout.width
    if given is not None:
        ground = check_finite(colours_of(given), "background_image", "Connect one that shows something")
        return _sized(ground[0].cpu(), height, width)
    if _is_background_drawn(layout, drawing, given):
        return _draw(checkpoint, layout, layout.background, drawing, seed, watch())
    return torch.ones(height, width, 3) if drawing.background == WHITE else textured_grey(height, width, seed)


def _is_background_drawn(layout: Layout, drawing: Drawing, given: Tensor | None) -> bool:
    return given is None and drawing.background == DRAWN and bool(layout.background.strip())


def _draw(
    checkpoint: Checkpoint,
    layout: Layout,
    prompt: str,
    drawing: Drawing,
    seed: int,
    callback: Callback,
) -> Tensor:
    """Picture of a prompt, (h w 3) in 0..1 of the canvas' size."""
    model, clip, vae = checkpoint.model, checkpoint.clip, checkpoint.vae
    cell = vae.spacial_compression_encode()
    sides = (max(1, side // cell) for side in (layout.height, layout.width))
    latent = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 4, *sides))
    positive, negative = (embed_captions(clip, [text]) for text in (prompt, ""))
    noise, euler = comfy.sample.prepare_noise(latent, seed), comfy.samplers.sampler_object("euler")
    sigmas = falling_levels(model, drawing.scheduler, drawing.steps)
    guider = plain_guider(model, Prompts(positive, negative, drawing.cfg))
    samples = guider.sample(noise, latent, euler, sigmas, callback=callback, disable_pbar=True, seed=seed)
    pixels = check_finite(vae.decode(samples), "What the model drew", PAINTED_NAN, batched=False).float().cpu()
    return _sized(pixels.reshape(-1, *pixels.shape[-3:])[0], layout.height, layout.width)  # of a video the first frame


def _sized(picture: Tensor, height: int, width: int) -> Tensor:
    if picture.shape[:2] == (height, width):
        return picture.clamp(0, 1)
    planes = resized(picture.permute(2, 0, 1)[None], (height, width))
    return planes[0].permute(1, 2, 0).clamp(0, 1)


def reference_seeds(seed: int, layouts: Sequence[Layout]) -> list[int]:
    """First seed of every reference of a batch; no two drawings share one, and none has the run's own.

    The run's own is that of the noise which an SDE start adds to the reference; shared with a drawing, it would find
    its own noise in there.
    """
    longest = max(len(layout.regions) for layout in layouts) + 1
    return [later_seed(seed, 1 + DRAWINGS * longest * number) for number in range(len(layouts))]


def later_seed(seed: int, offset: int) -> int:
    """Seed so far behind another; behind the highest that PyTorch takes comes 0."""
    return (seed + offset) % 2**64
