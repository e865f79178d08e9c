"""Layered rendering (LRDiff, arXiv 2311.18435) inside any ComfyUI sampler.

Every layer is an ordinary CONDITIONING entry with a mask and a share of the run, so ComfyUI itself evaluates the layers
in as few batches as memory allows and fuses them. What it cannot do is added around it: masks pooled by area onto the
grid of the run, a switch at t0 that counts no step twice, and vision guidance on the rows of the layers that have it.

Everything a run needs travels on the conditioning; the model carries one function without state. So the same prompts
work with any latent size, entries may be reordered or combined, and a model that carries the function twice, or samples
without layers, is the plain model.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..layout import Layout, LayoutError
from ..region import colour_to_rgb
from .comfy_layer_run import DELTA, LAYERS_UNTIL, OWN, VISIBLE, follow_layers

Conditioning = list[list[Any]]  # ComfyUI's: pairs of an embedded text and a dictionary of options

RANGE = ("start_percent", "end_percent", "clip_start_percent", "clip_end_percent")
NARROWING = ("mask", "area", "default")  # options that give a prompt a part of the canvas

FLAT_PICTURE = 256  # pixels; large enough that its centre does not see the encoder's padding
USUAL_CELL = 8  # pixels per latent cell where no VAE is connected to ask


@dataclass(frozen=True)
class Layer:
    """One layer of a run.

    Attributes:
        prompt: its caption.
        visible: (1 h w) at the canvas' resolution; the layers' masks are a partition of unity.
        own: (1 h w), the region's whole mask, where it has vision guidance.
        delta: (c), where it has vision guidance.
    """

    prompt: str
    visible: Tensor
    own: Tensor | None = None
    delta: Tensor | None = None

    def options(self) -> dict[str, Tensor]:
        """Give what its conditioning entries carry."""
        guided = {} if self.delta is None else {OWN: self.own, DELTA: self.delta}
        return {"mask": self.visible, VISIBLE: self.visible} | guided


def render_in_layers(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    vae: Any,  # noqa: ANN401 - ComfyUI's VAE or None
    layout: Layout,
    positive: Conditioning,
    negative: Conditioning,
    *,
    t0: float,
    strength: float,
    layer_prompt: str = "{phrase}",
) -> tuple[Any, Conditioning, Conditioning]:
    """Prepare a model and its prompts so that any sampler paints the layout layer by layer until t0 (LRDiff, Alg. 1).

    Until t0 every layer is evaluated with its own caption and, where its region has a colour, with xi added (Eq. 5);
    from t0 on the given prompts rule alone. A layer's caption and the negative prompt see the same xi (Eq. 7 as
    reconstructed), so a guided layer costs two rows of the model and one without guidance costs one: all of these share
    one row of the negative prompt. Options on the given prompts, such as a ControlNet, apply to every layer.

    Args:
        model: to sample with.
        clip: encodes the layers' captions.
        vae: encodes colours; needed where a region has a colour and strength is not 0.
        layout: the layers.
        positive: global prompt for the whole canvas.
        negative: negative prompt for the whole canvas, in every layer.
        t0: share of the run in 0..1 as ComfyUI counts it (start_percent, end_percent); 0 leaves everything as it is.
        strength: lambda, multiplies every region's own strength and the latent of its colour.
        layer_prompt: caption of a layer without a longer prompt; may hold {phrase}, {background} and {prompt}.

    Returns:
        Model, positive and negative for any sampler.

    Raises:
        LayoutError: a region that would not be seen, or a caption with an unknown placeholder.
        ValueError: prompts that already have a place on the canvas, or a VAE that is missing or of another model.
    """
    for name, conditioning in (("positive", positive), ("negative", negative)):
        _check_whole_canvas(name, conditioning)
    if t0 <= 0:
        return model, positive, negative
    layers = _make_layers(model, vae, layout, strength, layer_prompt)
    prompts = dict.fromkeys(layer.prompt for layer in layers)
    encoded = {prompt: clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in prompts}

    new_positive: Conditioning = []
    for _, options in _during(positive, 0.0, t0):
        for layer in layers:
            new_positive += _during(
                [[text, {**options, **own, **layer.options()}] for text, own in encoded[layer.prompt]], 0.0, t0
            )
    new_positive += _handing_over(positive, t0)

    new_negative = negative
    if any(layer.delta is not None for layer in layers):
        negative_layers = _share_negative(layers)
        during = _during(negative, 0.0, t0)
        new_negative = [[text, {**options, **layer.options()}] for text, options in during for layer in negative_layers]
        new_negative += _handing_over(negative, t0)

    return follow_layers(model), new_positive, new_negative


def _check_whole_canvas(name: str, conditioning: Conditioning) -> None:
    for _, options in conditioning:
        for key in NARROWING:
            if key in options:
                raise ValueError(
                    f'The {name} prompt already has a place on the canvas ("{key}"), so it cannot be layered. Connect '
                    f"the prompt's own CONDITIONING, before any mask, area or other layered rendering, to {name}."
                )


def _make_layers(model: Any, vae: Any, layout: Layout, strength: float, layer_prompt: str) -> list[Layer]:  # noqa: ANN401
    cell = vae.spacial_compression_encode() if vae is not None else USUAL_CELL
    own, visible = (of(layout.height, layout.width)[:, None] for of in (layout.masks, layout.visible_masks))
    smallest = 0.999 * cell**2  # pixels; room for rounding
    # A sliver of background is left to the layers beside it: ComfyUI divides by what is covered.
    layers = [Layer(layout.background, visible[0])] if visible[0].sum() >= smallest else []
    deltas: dict[str, Tensor] = {}
    for region, own_mask, seen in zip(layout.sorted_regions(), own, visible[1:], strict=True):
        if seen.sum() < smallest:
            reason = "is hidden by nearer regions" if own_mask.sum() >= smallest else "is too small"
            raise LayoutError(
                f'The region "{region.phrase}" {reason}: less of it is seen than one cell of {cell} x {cell} pixels. '
                "Make it larger, move it, or change the order."
            )
        layer = Layer(region.prompt or _caption(layer_prompt, layout, region.phrase), seen)
        factor = strength * region.strength
        if region.colour and factor != 0:
            if region.colour not in deltas:
                deltas[region.colour] = _colour_latent(model, vae, region.colour, region.phrase)
            layer = replace(layer, own=own_mask, delta=factor * deltas[region.colour])
        layers.append(layer)
    return layers


def _caption(template: str, layout: Layout, phrase: str) -> str:
    words = {"phrase": phrase, "background": layout.background, "prompt": layout.prompt}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise LayoutError(f"The layer prompt has the placeholder {match[0]}; known: {{{'}, {'.join(words)}}}.")
        return words[match[1]]

    return re.sub(r"\{(\w*)\}", fill, template).strip()


def _colour_latent(model: Any, vae: Any, colour: str, phrase: str) -> Tensor:  # noqa: ANN401
    """Latent of a plain picture of one colour, (c), in the model's own latent space.

    As in the paper nothing is subtracted from it: xi is measured against the model's zero, which for the usual
    autoencoders is close to a middle grey.
    """
    if vae is None:
        raise ValueError(
            f'The region "{phrase}" has the colour "{colour}". Connect the model\'s VAE to vae, or set strength to 0.'
        )
    latent_format = model.get_model_object("latent_format")
    if vae.latent_channels != latent_format.latent_channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels} latent channels, but the model has {latent_format.latent_channels}. "
            "Connect the VAE that belongs to the model to vae."
        )
    picture = torch.tensor(colour_to_rgb(colour)).expand(1, FLAT_PICTURE, FLAT_PICTURE, 3)
    latent = latent_format.process_in(vae.encode(picture.contiguous()))
    plane = latent[0, :, 0] if latent.ndim == 5 else latent[0]
    return plane[:, plane.shape[1] // 2, plane.shape[2] // 2].detach().float().cpu()


def _share_negative(layers: list[Layer]) -> list[Layer]:
    """Join the layers that the negative prompt sees alike, those without guidance, into one."""
    alike = [layer for layer in layers if layer.delta is None]
    guided = [layer for layer in layers if layer.delta is not None]
    return guided + ([Layer("", torch.stack([layer.visible for layer in alike]).sum(0))] if alike else [])


def _during(conditioning: Conditioning, start: float, end: float) -> Conditioning:
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


def _handing_over(conditioning: Conditioning, t0: float) -> Conditioning:
    """Let the given prompts rule from t0 on."""
    return [[text, {**options, LAYERS_UNTIL: t0}] for text, options in _during(conditioning, t0, 1.0)]
