"""Layered rendering (LRDiff, arXiv 2311.18435) inside any ComfyUI sampler.

Every layer is an ordinary CONDITIONING entry with a mask and a share of the run, so ComfyUI itself evaluates the layers
in as few batches as memory allows and fuses them. What it cannot do is added around it: masks pooled by area onto the
grid of the run, a switch at t0 that counts no step twice, vision guidance on the rows of the layers that have it, and
trajectories that meet only at t0.

Everything a run needs travels on the conditioning; the model carries one function without state. So the same prompts
work with any latent size, entries may be reordered or combined, and a model that carries the function twice, or samples
without layers, is the plain model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...comfy.entries import prepared_by
from ...comfy.types import Clip, Conditioning, Model, Options, Vae
from ...layout.layout import Layout
from .entry import GivenPart, HandOver
from .follow import follow_layers
from .loras import Worn
from .make_layers import make_layers
from .settings import TRAJECTORIES, Layer, Rendering, share_negative

RANGE = ("start_percent", "end_percent", "clip_start_percent", "clip_end_percent")
NARROWING = ("mask", "area", "default")  # options that give a prompt a part of the canvas
# Belong to the tokens of the prompt that carries them; a layer's caption brings its own or has none.
OF_ITS_TEXT = (
    "pooled_output",
    "attention_mask",
    "attention_mask_img_shape",
    "conditioning_byt5small",
    "conditioning_llama3",
    "conditioning_mt5xl",
    "attention_mask_mt5xl",
    "conditioning_lyrics",
)


def render_in_layers(
    model: Model,
    clip: Clip,
    vae: Vae | None,
    layout: Layout | Sequence[Layout],
    positive: Conditioning,
    negative: Conditioning,
    rendering: Rendering,
) -> tuple[Model, Conditioning, Conditioning]:
    """Prepare a model and its prompts so that any sampler paints the layout layer by layer until t0 (LRDiff, Alg. 1).

    Until t0 every layer is evaluated with its own caption and, where it has a delta, with xi added (Eq. 5); from t0 on
    the given prompts rule alone, with the regions' LoRAs still on their places. In `paper` mode all layers share one
    latent, which is fused at every step (Eq. 7 and 8 as reconstructed). In `trajectories` mode each layer is sampled by
    itself up to t0 and the latents are put together once, as the authors' script does it. A layer's caption and its
    negative prompt see the same xi, so a guided layer costs two rows of the model; in `paper` mode all layers without
    guidance share one row of the negative prompt. Options on the given prompts, such as a ControlNet, apply to every
    layer.

    Args:
        model: to sample with.
        clip: encodes the layers' captions.
        vae: encodes colours and reference pictures; needed where there are any and strength is not 0.
        layout: the layers; or one layout for each picture of the batch.
        positive: global prompt for the whole canvas.
        negative: negative prompt for the whole canvas, in every layer without one of its own.
        rendering: how; its t0 of 0 leaves everything as it is.

    Returns:
        Model, positive and negative for any sampler.

    Raises:
        LayoutError: a region that would not be seen, or a caption with an unknown placeholder.
        ValueError: prompts that already have a place on the canvas, or a VAE that is missing or of another model.
    """
    for name, conditioning in (("positive", positive), ("negative", negative)):
        _check_whole_canvas(f"{name} prompt", conditioning)
    for each in rendering.settings:
        _check_whole_canvas(f'positive prompt of the layer "{each.region}"', each.positive or [])
        _check_whole_canvas(f'negative prompt of the layer "{each.region}"', each.negative or [])
    if rendering.t0 <= 0:
        return model, positive, negative
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    if rendering.mode == TRAJECTORIES:
        layouts = [one.largest_first() for one in layouts]
    layers = make_layers(model, clip, vae, layouts, rendering)
    if rendering.mode == TRAJECTORIES:
        return follow_layers(model), *_apart(layers, positive, negative, rendering.t0)
    return follow_layers(model), *_together(layers, positive, negative, rendering.t0, rendering.crop)


def _check_whole_canvas(name: str, conditioning: Conditioning) -> None:
    if node := prepared_by(conditioning):
        raise ValueError(
            f"The {name} comes from {node}, so it cannot be layered. Connect the prompt's own CONDITIONING, before any "
            "other Layered Rendering or Edit Picture in Layers; what belongs into one picture is one layout, "
            "or one chain of edits."
        )
    for _, options in conditioning:
        for key in NARROWING:
            if key in options:
                raise ValueError(
                    f'The {name} already has a place on the canvas ("{key}"), so it cannot be layered. Connect the '
                    "prompt's own CONDITIONING, before any mask, area or other layered rendering."
                )


def _together(
    layers: list[Layer], positive: Conditioning, negative: Conditioning, t0: float, crop: int | None
) -> tuple[Conditioning, Conditioning]:
    """Masked entries until t0, and the given prompts from there on."""

    def on_entry(layer: Layer) -> Options:
        return {"mask": layer.visible} | layer.options(None if layer.is_background else crop)

    new_positive: Conditioning = []
    for entry in during(positive, 0.0, t0):
        for layer in layers:
            mine = [
                [text, layer.dressed(options) | on_entry(layer)]
                for text, options in like_given([entry], layer.positive)
            ]
            new_positive += during(mine, 0.0, t0)
    new_positive += _handing_over(positive, t0, layers)
    if not any(layer.needs_negative for layer in layers):
        return new_positive, negative
    new_negative: Conditioning = []
    for layer in share_negative(layers):
        given = negative if layer.negative is None else like_given(during(negative, 0.0, t0), layer.negative)
        new_negative += [[text, layer.dressed(options) | on_entry(layer)] for text, options in during(given, 0.0, t0)]
    return new_positive, new_negative + _handing_over(negative, t0, layers)


def _apart(
    layers: list[Layer], positive: Conditioning, negative: Conditioning, t0: float
) -> tuple[Conditioning, Conditioning]:
    """Entries for the whole canvas; the run hands each layer's to its own sampling, and the given ones to the rest."""
    until = HandOver(trajectories_until=t0).to_options()
    new_positive = [
        [text, layer.dressed(options) | layer.options() | until]
        for entry in positive
        for layer in layers
        for text, options in like_given([entry], layer.positive)
    ]
    new_negative = [
        [text, layer.dressed(options) | layer.options() | until]
        for layer in layers
        for text, options in (negative if layer.negative is None else like_given(negative, layer.negative))
    ]
    return (
        new_positive + [[text, options | until] for text, options in _still_worn(positive, layers)],
        new_negative + [[text, options | until] for text, options in _still_worn(negative, layers)],
    )


def like_given(given: Conditioning, own: Conditioning) -> Conditioning:
    """A layer's own prompt, with what lies on each entry of the given one besides its text, such as a ControlNet."""
    return [[text, _for_layers(options) | mine] for _, options in given for text, mine in own]


def _for_layers(options: Options) -> Options:
    """What of the global prompt's options applies to every layer too."""
    return {key: value for key, value in options.items() if key not in OF_ITS_TEXT}


def during(conditioning: Conditioning, start: float, end: float) -> Conditioning:
    """Narrow every entry's share of the run to start..end, leaving out those of which nothing is left."""
    narrowed = []
    for text, options in conditioning:
        first = max(start, options.get("start_percent", 0.0), options.get("clip_start_percent", 0.0))
        last = min(end, options.get("end_percent", 1.0), options.get("clip_end_percent", 1.0))
        if first < last:
            kept = {key: value for key, value in options.items() if key not in RANGE}
            bounds = ({"start_percent": first} if first > 0 else {}) | ({"end_percent": last} if last < 1 else {})
            narrowed.append([text, kept | bounds])
    return narrowed


def _handing_over(conditioning: Conditioning, t0: float, layers: Sequence[Layer]) -> Conditioning:
    """Let the given prompts rule from t0 on."""
    until = HandOver(layers_until=t0).to_options()
    return [[text, options | until] for text, options in during(_still_worn(conditioning, layers), t0, 1.0)]


def _still_worn(given: Conditioning, layers: Sequence[Layer]) -> Conditioning:
    """The given prompt for each region that wears LoRAs and for the rest: without them a look would be painted over."""
    wearing = [layer for layer in layers if layer.worn is not None]
    if not wearing:
        return given
    alike: dict[Worn, Tensor] = {}
    for layer in wearing:
        alike[layer.worn] = alike.get(layer.worn, 0) + layer.visible
    parts = [
        [text, worn.on(options) | GivenPart(part).to_options()]
        for worn, part in alike.items()
        for text, options in given
    ]
    rest = 1 - torch.stack([part.float() for part in alike.values()]).sum(0)
    if rest.clamp(min=0).sum() > 0:
        parts += [[text, options | GivenPart(rest.clamp(min=0)).to_options()] for text, options in given]
    return parts
