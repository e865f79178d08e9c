"""What every method hears about a layout, and where it comes from: a row of a table is read beside this."""

from dataclasses import dataclass
from typing import Literal

PROMPT, BOXES, NAMES, COLOURS, GUESSES, CUT_OUTS, PICTURE, SHAPES, ORDER, BACKGROUND = (
    "whole prompt",
    "boxes or masks",
    "names",
    "true colours",
    "colours guessed from names",
    "its own cut-outs",
    "the picture",
    "exact shapes of what goes away or moves",
    "order of the things",
    "what the background is called",
)
# Models whose gradients a method follows, or which choose its settings: what guides is no judge of what it guided.
CLIP_GUIDES, SEGMENTER_GUIDES, SPECIALISTS_GUIDE = (
    "what the nodes' CLIP sees",
    "what the nodes' segmenter sees",
    "what the two specialists see",
)
TWO_DEPTHS, ONE_DEPTH, LOOKS = "depth of foreground and background", "depth of the whole scene", "reference pictures"
Origin = Literal["published", "reconstructed", "ours", "ComfyUI's"]


@dataclass(frozen=True)
class Told:
    """One method.

    Attributes:
        hears: of the layout, edit or picture; the background's name goes with the names.
        origin: whether it is published, reconstructed from a paper that leaves something open, ComfyUI's or ours.
    """

    hears: tuple[str, ...]
    origin: Origin


PLACED = (PROMPT, BOXES, NAMES)
EDITED = (PICTURE, PROMPT, BOXES, SHAPES, NAMES)
SPLIT = (PICTURE, NAMES, ORDER)
TOLD: dict[str, Told] = {
    "plain": Told((PROMPT,), "ComfyUI's"),
    "set_mask": Told((BOXES, NAMES), "ComfyUI's"),
    "multidiffusion": Told(PLACED, "published"),  # the whole prompt from its hand-over on, which is our addition
    "lrdiff": Told(PLACED, "reconstructed"),
    "lrdiff_off": Told(PLACED, "ours"),
    "lrdiff_words": Told((*PLACED, GUESSES), "reconstructed"),
    "lrdiff_colours": Told((*PLACED, COLOURS), "reconstructed"),
    "lrdiff_without": Told(PLACED, "reconstructed"),
    "lrdiff_trajectories": Told(PLACED, "reconstructed"),
    "lrdiff_published": Told(PLACED, "published"),
    "lrdiff_crop": Told(PLACED, "ours"),
    "chen": Told(PLACED, "reconstructed"),
    "boxdiff": Told(PLACED, "reconstructed"),
    "spatial_latent": Told((*PLACED, CUT_OUTS), "reconstructed"),
    "refocusing": Told(PLACED, "reconstructed"),
    "sali": Told((*PLACED, CUT_OUTS), "reconstructed"),
    "sali_regularised": Told((*PLACED, CUT_OUTS), "reconstructed"),
    "soft": Told((BOXES, NAMES), "ours"),
    "region_tokens": Told((BOXES, NAMES), "ours"),
    "edit": Told(EDITED, "reconstructed"),
    "edit_colours": Told((*EDITED, COLOURS), "reconstructed"),
    "inpaint": Told(EDITED, "ComfyUI's"),
    "vae": Told((PICTURE,), "ComfyUI's"),
    "split": Told(SPLIT, "reconstructed"),
    "split_words": Told((*SPLIT, BACKGROUND), "ours"),
    "cut_out": Told(SPLIT, "ours"),
    "cnc": Told((PROMPT, TWO_DEPTHS, LOOKS), "reconstructed"),
    "cnc_open": Told((PROMPT, LOOKS), "ours"),
    "cnc_single": Told((PROMPT, ONE_DEPTH), "ours"),
    "cnc_phrases": Told((PROMPT, TWO_DEPTHS, BOXES, NAMES), "ours"),
    "phrases": Told(PLACED, "ours"),
    "tcig": Told((*PLACED, CLIP_GUIDES, SEGMENTER_GUIDES), "reconstructed"),
    "tcig_layered": Told((*PLACED, CLIP_GUIDES, SEGMENTER_GUIDES), "ours"),
    "tcig_two": Told((*PLACED, CLIP_GUIDES, SPECIALISTS_GUIDE), "reconstructed"),
    "tcig_grey": Told((*PLACED, CLIP_GUIDES, SEGMENTER_GUIDES), "ours"),
    "tcig_canonical": Told((*PLACED, CLIP_GUIDES, SEGMENTER_GUIDES), "reconstructed"),
    # After its draft a segmenter chooses the strength of stage two.
    "vqgan_clip": Told((PROMPT, CLIP_GUIDES, SEGMENTER_GUIDES), "published"),
    "tcig_start": Told(PLACED, "ours"),
    "tcig_start_clip": Told((*PLACED, CLIP_GUIDES), "ours"),
    "drawing": Told((PROMPT, BOXES, COLOURS), "ours"),
}
