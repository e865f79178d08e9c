"""An edit by our own nodes, by ComfyUI's inpainting, and a picture that is encoded and decoded: graphs for the queue.

All edits have steps, CFG, sampler, scheduler, noise and strength (denoise 1) in common, and the words for the finished
picture. The settings of Edit Picture in Layers are those of the shipped workflow `lrdiff_edit`; nothing was tuned here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...core.layout.masks import Box
from ...core.layout.prompts import with_article
from ...sticker_world.world.concepts import CANVAS
from ..graphs.builder import CFG, NEGATIVE, SAMPLER, SCHEDULER, STEPS, Graph, GraphBuilder, Link
from ..graphs.colours import TRUE
from ..sets.edits import EDGE, INSERT, MOVE, REMOVE, REPLACE, PictureEdit, box_around
from ..sets.make_layouts import mean_colour

EDIT, EDIT_COLOURS, INPAINT, VAE = "edit", "edit_colours", "inpaint", "vae"
# As in workflows/lrdiff_edit.json, which a test holds; it says nothing of the given picture either.
SETTINGS = {"source_prompt": "", "end_at": 0.7, "strength": 1.0, "edge": EDGE, "refinements": 1, "source": "auto"}
COLOURED = (INSERT, REPLACE)  # what can be told a colour


@dataclass(frozen=True)
class Files:
    """Names in the server's input folder.

    Attributes:
        picture: the given one.
        old: mask of what goes away, is replaced or moves; "" for an insertion.
        inpainted: mask of what inpainting paints anew, before it is grown.
    """

    picture: str
    old: str
    inpainted: str


Editor = Callable[[PictureEdit, Files], Graph]


def _mask(builder: GraphBuilder, name: str) -> Link:
    return [builder.add("LoadImageMask", image=name, channel="red"), 0]


def sampled(
    builder: GraphBuilder, model: Link, positive: Link, negative: Link, vae: Link, latent: Link, seed: int
) -> Graph:
    """Add KSampler and all that comes after it; returns the finished graph."""
    sampler = builder.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=seed,
        steps=STEPS,
        cfg=CFG,
        sampler_name=SAMPLER,
        scheduler=SCHEDULER,
        denoise=1.0,
    )
    return builder.show([builder.add("VAEDecode", samples=[sampler, 0], vae=vae), 0])


def edited(edit: PictureEdit, files: Files, *, colours: bool = False) -> Graph:
    """Our nodes; with the true colour of what is put down where `colours` says so."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    colour = mean_colour(edit.wanted) if colours else ""
    phrase = with_article(edit.wanted) if edit.wanted else ""
    if edit.kind == INSERT:
        edits = builder.add("StageEditInsert", layout=builder.layout(edit.layout(colour), TRUE))
    elif edit.kind == REPLACE:
        place = {"mask": _mask(builder, files.old), "shape": "box", "keep": 0.0}
        edits = builder.add("StageEditReplace", phrase=phrase, prompt="", colour=colour, **place)
    elif edit.kind == REMOVE:
        edits = builder.add("StageEditRemove", mask=_mask(builder, files.old), name=with_article(edit.gone))
    else:
        right, down = edit.shift
        edits = builder.add("StageEditMove", mask=_mask(builder, files.old), name=phrase, right=right, down=down)
    run = builder.add(
        "StageEditPicture",
        model=model,
        clip=clip,
        vae=vae,
        image=[builder.add("LoadImage", image=files.picture), 0],
        positive=builder.encode(clip, edit.prompt),
        negative=builder.encode(clip, NEGATIVE),
        background=edit.background,
        edits=[edits, 0],
        **SETTINGS,
    )
    return sampled(builder, [run, 0], [run, 1], [run, 2], vae, [run, 3], edit.seed)


def edited_with_colours(edit: PictureEdit, files: Files) -> Graph:
    """See `edited`."""
    return edited(edit, files, colours=True)


def inpainted(edit: PictureEdit, files: Files) -> Graph:
    """ComfyUI's own nodes: Set Latent Noise Mask, the mask grown by the same edge; the names go to the same prompts.

    Of a moved thing first a cut-out is pasted at its new place; what is inpainted is its old place.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    picture: Link = [builder.add("LoadImage", image=files.picture), 0]
    if edit.kind == MOVE:
        picture = _pasted(builder, picture, _mask(builder, files.old), box_around(edit.old), edit.shift)
    latent = builder.add("VAEEncode", pixels=picture, vae=vae)
    mask = builder.add("GrowMask", mask=_mask(builder, files.inpainted), expand=EDGE, tapered_corners=True)
    masked = builder.add("SetLatentNoiseMask", samples=[latent, 0], mask=[mask, 0])
    # What a replaced thing is called, Edit Picture in Layers is not told either.
    unwanted = with_article(edit.gone) if edit.kind == REMOVE else NEGATIVE
    prompts = (builder.encode(clip, text) for text in (edit.prompt, unwanted))
    return sampled(builder, model, *prompts, vae, [masked, 0], edit.seed)


def _pasted(builder: GraphBuilder, picture: Link, mask: Link, box: Box, shift: tuple[float, float]) -> Link:
    x0, y0, x1, y1 = (round(side * CANVAS) for side in box)
    right, down = (round(each * CANVAS) for each in shift)
    size = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    cut = builder.add("ImageCrop", image=picture, **size)
    alpha = builder.add("CropMask", mask=mask, **size)
    pasted = builder.add(
        "ImageCompositeMasked",
        destination=picture,
        source=[cut, 0],
        mask=[alpha, 0],
        x=x0 + right,
        y=y0 + down,
        resize_source=False,
    )
    return [pasted, 0]


def encoded_and_decoded(picture: str) -> Graph:
    """A picture through the VAE and nothing else: what no edit that goes through it can come closer than."""
    builder = GraphBuilder()
    _, _, vae = builder.load()
    image = builder.add("LoadImage", image=picture)
    latent = builder.add("VAEEncode", pixels=[image, 0], vae=vae)
    return builder.show([builder.add("VAEDecode", samples=[latent, 0], vae=vae), 0])


METHODS: dict[str, Editor] = {
    EDIT: edited,
    EDIT_COLOURS: edited_with_colours,
    INPAINT: inpainted,
    VAE: lambda _, files: encoded_and_decoded(files.picture),
}


def methods_of(kind: str) -> list[str]:
    """Names of the methods that are another thing for this kind of edit."""
    return [name for name in METHODS if name != EDIT_COLOURS or kind in COLOURED]
