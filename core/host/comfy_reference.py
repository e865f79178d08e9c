"""Draws a layout's reference picture with ComfyUI's own sampling: things, what is cut out of them, a background."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ..layout import Layout
from ..metrics import INSIDE
from ..prompts import fill_prompt
from ..region import Region
from ..segmentation import Segmenter, SegmenterError, match_class
from ..spatial_latent import paste_things, textured_grey, thing_in
from .comfy_attention import read_phrase_attention
from .comfy_inversion import plain_guider
from .comfy_inverted_start import falling_levels
from .comfy_words import phrase_positions

DRAWN, GREY, WHITE = "drawn", "grey noise", "white"
BACKGROUNDS = (DRAWN, GREY, WHITE)
# reconstructed: a drawn thing that the segmenter hardly sees is drawn again with other noise, so often at most, and
# what it sees best is taken. Smaller than this share of the picture is a speck, not the thing.
DRAWINGS = 3
SMALLEST_SHARE = 0.02
# reconstructed: at which share of a run attention is read for a cut-out; half-way, things have outlines.
READ_AT = 0.5

Watch = Callable[[], Any]  # gives the callback of the next run


@dataclass(frozen=True)
class Checkpoint:
    """What draws the things: ComfyUI's MODEL, CLIP and VAE of one checkpoint."""

    model: Any
    clip: Any
    vae: Any


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


def count_drawings(layout: Layout, drawing: Drawing, images: Tensor | None, background: Tensor | None) -> int:
    """How many pictures are drawn for one reference if each succeeds at once."""
    things = 0 if images is not None else sum(region.strength != 0 for region in layout.regions)
    return things + int(_is_background_drawn(layout, drawing, background))


def make_reference(
    checkpoint: Checkpoint,
    layout: Layout,
    drawing: Drawing,
    seed: int,
    watch: Watch,
    *,
    images: Tensor | None = None,
    masks: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """Make a picture with something like each thing of a layout in its place.

    Args:
        checkpoint: draws what is not given.
        layout: what goes where.
        drawing: how things are drawn and cut out.
        seed: of the first thing's noise; each drawing has its own.
        watch: asked for a callback before each drawing.
        images: (n h w 3 or 4), one for each region in the layout's order; with four channels the last cuts out.
        masks: (n h w), where the things are in `images`.
        background: (1 h w 3), in place of a drawn one.

    Returns:
        (h w 3) in 0..1, of the canvas' size.

    Raises:
        ValueError: another number of images or masks, or a thing that cannot be cut out.
    """
    _check_given(layout, images, masks)
    if images is None or (masks is None and images.shape[-1] != 4):
        _check_phrases(layout, drawing.segmenter)
    pictures, cut = [], []
    for number, region in enumerate(layout.regions):
        if region.strength == 0:
            picture, mask = torch.zeros(1, 1, 3), torch.ones(1, 1)  # never pasted
        elif images is not None:
            picture = images[number].float().cpu()
            mask = _given_mask(checkpoint, layout, region, drawing, picture, None if masks is None else masks[number])
        else:
            picture, mask = _draw_thing(checkpoint, layout, region, drawing, seed + DRAWINGS * number, watch)
        pictures.append(picture[..., :3])
        cut.append(mask)
    canvas = _background(checkpoint, layout, drawing, background, seed + DRAWINGS * len(layout.regions), watch)
    return paste_things(canvas, layout, pictures, cut)


def _check_given(layout: Layout, images: Tensor | None, masks: Tensor | None) -> None:
    count = len(layout.regions)
    if images is None and masks is not None:
        raise ValueError(
            "Masks are connected without images; they say where the things are in the images. Connect images too, or "
            "give the layout's regions the masks."
        )
    for name, given in (("images", images), ("masks", masks)):
        if given is not None and len(given) != count:
            raise ValueError(
                f"{len(given)} {name} are connected for {count} regions. Connect a batch with one for each region, in "
                "the order in which the layout lists them."
            )
    for number, mask in enumerate(masks if masks is not None else ()):
        if not mask.any():
            raise ValueError(f'Mask {number + 1}, of "{layout.regions[number].phrase}", is empty. Paint the thing.')


def _check_phrases(layout: Layout, segmenter: Segmenter | None) -> None:
    """Refuse a phrase that cannot be cut out before anything is drawn."""
    for region in layout.regions if segmenter is not None else ():
        if region.strength == 0:
            continue
        try:
            match_class(region.phrase, segmenter.classes)
        except SegmenterError as error:
            raise SegmenterError(
                f'There is no cut-out picture of "{region.phrase}", and {error} Or connect images and masks, or let '
                "cut_out be the attention map."
            ) from None


def _given_mask(
    checkpoint: Checkpoint, layout: Layout, region: Region, drawing: Drawing, picture: Tensor, mask: Tensor | None
) -> Tensor:
    if mask is None and picture.shape[-1] == 4:
        mask = picture[..., 3]
        if not mask.any():
            raise ValueError(f'The image of "{region.phrase}" is transparent everywhere. Connect one that shows it.')
    if mask is not None:
        mask = mask.float().cpu()
        if mask.shape != picture.shape[:2]:
            raise ValueError(
                f'The mask of "{region.phrase}" is {mask.shape[1]} x {mask.shape[0]} pixels, but its image is '
                f"{picture.shape[1]} x {picture.shape[0]}. Give both one size."
            )
        return mask
    found, _ = _cut_out(checkpoint, layout, region, drawing, picture)
    if found is None:
        raise ValueError(
            f'The segmenter does not find "{region.phrase}" in its image. Connect masks too, or let cut_out be the '
            "attention map."
        )
    return found


def _draw_thing(
    checkpoint: Checkpoint, layout: Layout, region: Region, drawing: Drawing, seed: int, watch: Watch
) -> tuple[Tensor, Tensor]:
    """Picture and mask of the drawing that shows the thing best: (h w 3) and (h w)."""
    prompt = fill_prompt(drawing.object_prompt, layout, region, "object prompt")
    best: tuple[float, Tensor, Tensor] | None = None
    for attempt in range(DRAWINGS):
        picture = _draw(checkpoint, layout, prompt, drawing, seed + attempt, watch())
        mask, sureness = _cut_out(checkpoint, layout, region, drawing, picture)
        if mask is not None and (best is None or sureness > best[0]):
            best = sureness, picture, mask
        if best is not None and best[0] >= INSIDE and best[2].mean() >= SMALLEST_SHARE:
            break
    if best is None:
        raise ValueError(
            f'In {DRAWINGS} pictures of "{prompt}" the segmenter finds no "{region.phrase}". Change the object prompt '
            "or the seed, connect images, or let cut_out be the attention map."
        )
    return best[1], best[2]


def _cut_out(
    checkpoint: Checkpoint, layout: Layout, region: Region, drawing: Drawing, picture: Tensor
) -> tuple[Tensor | None, float]:
    """Mask of a thing in its picture, (h w), and how sure that is, 0..1; None where it is not there."""
    picture = picture[..., :3]
    if drawing.segmenter is None:
        seen = _attention_to(checkpoint, region.phrase, picture)
        grid = torch.nn.functional.interpolate(seen[None, None], picture.shape[:2], mode="bilinear")[0, 0]
        return thing_in(grid), 1.0
    probabilities = drawing.segmenter.probabilities(picture[None])[0]
    likelihood = probabilities[drawing.segmenter.class_of(region.phrase)]
    # Where the thing is nowhere the likeliest class, its map has an outline of its own only by chance.
    if not (probabilities.argmax(0) == drawing.segmenter.class_of(region.phrase)).any():
        return None, 0.0
    mask = thing_in(likelihood)
    return mask, float(likelihood[mask > 0].mean()) if mask.mean() >= SMALLEST_SHARE else 0.0


def _attention_to(checkpoint: Checkpoint, phrase: str, picture: Tensor) -> Tensor:
    """Where a model looks for a phrase in a picture that is noised half-way, (h w) in latent cells."""
    model, clip, vae = checkpoint.model, checkpoint.clip, checkpoint.vae
    latent = vae.encode(picture[None])
    words = torch.tensor(phrase_positions(clip, phrase, phrase))
    found: list[Tensor] = []

    def read(denoise: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], **_: object) -> Tensor:  # noqa: ANN401
        guider = denoise.inner_model
        entries = guider.conds["positive"]
        maps = read_phrase_attention(
            guider.inner_model, entries, {entry["uuid"]: [words] for entry in entries}, x, sigmas[:1],
            extra_args["model_options"],
        )  # fmt: skip
        found.extend(maps.values())
        return x

    sigma = model.get_model_object("model_sampling").percent_to_sigma(READ_AT)
    guider = plain_guider(model, clip.encode_from_tokens_scheduled(clip.tokenize(phrase)))
    sampler = comfy.samplers.KSAMPLER(read)
    noise = comfy.sample.prepare_noise(latent, 0)
    guider.sample(noise, latent, sampler, torch.tensor([float(sigma), 0.0]), disable_pbar=True, seed=0)
    return found[0][0].float().cpu()


def _background(
    checkpoint: Checkpoint, layout: Layout, drawing: Drawing, given: Tensor | None, seed: int, watch: Watch
) -> Tensor:
    height, width = layout.height, layout.width
    if given is not None:
        return _sized(given[0, ..., :3].float().cpu(), height, width)
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
    callback: Any,  # noqa: ANN401
) -> Tensor:
    """Picture of a prompt, (h w 3) in 0..1 of the canvas' size."""
    model, clip, vae = checkpoint.model, checkpoint.clip, checkpoint.vae
    cell = vae.spacial_compression_encode()
    sides = (max(1, side // cell) for side in (layout.height, layout.width))
    latent = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 4, *sides))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, ""))
    samples = plain_guider(model, positive, negative, drawing.cfg).sample(
        comfy.sample.prepare_noise(latent, seed), latent, comfy.samplers.sampler_object("euler"),
        falling_levels(model, drawing.scheduler, drawing.steps), callback=callback, disable_pbar=True, seed=seed,
    )  # fmt: skip
    pixels = vae.decode(samples).float().cpu()
    return _sized(pixels.reshape(-1, *pixels.shape[-3:])[0], layout.height, layout.width)  # of a video the first frame


def _sized(picture: Tensor, height: int, width: int) -> Tensor:
    if picture.shape[:2] == (height, width):
        return picture.clamp(0, 1)
    planes = picture.permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).clamp(0, 1)


def reference_seeds(seed: int, layouts: Sequence[Layout]) -> list[int]:
    """First seed of every reference of a batch; no two drawings share one."""
    longest = max(len(layout.regions) for layout in layouts) + 1
    return [seed + DRAWINGS * longest * number for number in range(len(layouts))]
