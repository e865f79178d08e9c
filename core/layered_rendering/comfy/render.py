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
from typing import Any

from ...layout.layout import Layout
from ..vision_guidance import AS_PUBLISHED, VisionGuidance
from . import keys
from .follow import follow_layers
from .make_layers import make_layers
from .settings import Conditioning, Layer, LayerSettings, share_negative

PAPER, TRAJECTORIES = "paper", "trajectories"
MODES = (PAPER, TRAJECTORIES)
RANGE = ("start_percent", "end_percent", "clip_start_percent", "clip_end_percent")
NARROWING = ("mask", "area", "default")  # options that give a prompt a part of the canvas
# Belong to the tokens of the prompt that carries them; a layer's caption brings its own or has none.
OF_ITS_TEXT = (
    "pooled_output", "attention_mask", "attention_mask_img_shape", "conditioning_byt5small", "conditioning_llama3",
    "conditioning_mt5xl", "attention_mask_mt5xl", "conditioning_lyrics",
)  # fmt: skip


def render_in_layers(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    vae: Any,  # noqa: ANN401 - ComfyUI's VAE or None
    layout: Layout | Sequence[Layout],
    positive: Conditioning,
    negative: Conditioning,
    *,
    t0: float,
    strength: float,
    layer_prompt: str = "{phrase}",
    mode: str = PAPER,
    guidance: VisionGuidance | None = None,
    background_negative: str = "",
    crop: int | None = None,
    settings: Sequence[LayerSettings] = (),
) -> tuple[Any, Conditioning, Conditioning]:
    """Prepare a model and its prompts so that any sampler paints the layout layer by layer until t0 (LRDiff, Alg. 1).

    Until t0 every layer is evaluated with its own caption and, where it has a delta, with xi added (Eq. 5); from t0 on
    the given prompts rule alone. In `paper` mode all layers share one latent, which is fused at every step (Eq. 7 and
    8 as reconstructed). In `trajectories` mode each layer is sampled by itself up to t0 and the latents are put
    together once, as the authors' script does it. A layer's caption and its negative prompt see the same xi, so a
    guided layer costs two rows of the model; in `paper` mode all layers without guidance share one row of the negative
    prompt. Options on the given prompts, such as a ControlNet, apply to every layer.

    Args:
        model: to sample with.
        clip: encodes the layers' captions.
        vae: encodes colours and reference pictures; needed where there are any and strength is not 0.
        layout: the layers; or one layout for each picture of the batch.
        positive: global prompt for the whole canvas.
        negative: negative prompt for the whole canvas, in every layer without one of its own.
        t0: share of the run in 0..1 as ComfyUI counts it (start_percent, end_percent); 0 leaves everything as it is.
        strength: lambda, multiplies every region's own strength and its delta.
        layer_prompt: caption of a layer without a longer prompt; may hold {phrase}, {background} and {prompt}.
        mode: "paper" or "trajectories".
        guidance: where delta comes from and how it is used; None takes the regions' colours.
        background_negative: negative prompt of the background's layer, in place of the given one; may hold {phrases},
            {background} and {prompt}; empty takes the given one.
        crop: margin in latent cells: evaluate each region's layer only on its surroundings; None: on the whole canvas.
        settings: prompts and CFG of single layers.

    Returns:
        Model, positive and negative for any sampler.

    Raises:
        LayoutError: a region that would not be seen, or a caption with an unknown placeholder.
        ValueError: prompts that already have a place on the canvas, a VAE that is missing or of another model, or
            settings that do not go together.
    """
    for name, conditioning in (("positive", positive), ("negative", negative)):
        _check_whole_canvas(f"{name} prompt", conditioning)
    for each in settings:
        _check_whole_canvas(f'positive prompt of the layer "{each.region}"', each.positive or [])
        _check_whole_canvas(f'negative prompt of the layer "{each.region}"', each.negative or [])
    guidance = guidance or VisionGuidance()
    _check_mode(mode, guidance, crop)
    if t0 <= 0:
        return model, positive, negative
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    if mode == TRAJECTORIES:
        layouts = [one.largest_first() for one in layouts]
    layers = make_layers(
        model, clip, vae, layouts, guidance=guidance, strength=strength, layer_prompt=layer_prompt,
        background_negative=background_negative, settings=settings,
    )  # fmt: skip
    prepare = _apart if mode == TRAJECTORIES else _together
    return follow_layers(model), *prepare(layers, positive, negative, t0, crop)


def _check_whole_canvas(name: str, conditioning: Conditioning) -> None:
    for _, options in conditioning:
        for key in NARROWING:
            if key in options:
                raise ValueError(
                    f'The {name} already has a place on the canvas ("{key}"), so it cannot be layered. Connect the '
                    "prompt's own CONDITIONING, before any mask, area or other layered rendering."
                )


def _check_mode(mode: str, guidance: VisionGuidance, crop: int | None) -> None:
    if mode not in MODES:
        raise ValueError(f'Layered rendering has the mode "{mode}"; known: {", ".join(MODES)}.')
    if guidance.inject == AS_PUBLISHED and mode != TRAJECTORIES:
        raise ValueError(
            f'Vision guidance is to be injected "{AS_PUBLISHED}", which changes the latent of each layer for good; the '
            f'mode "{PAPER}" has one latent for all of them. Choose the mode "{TRAJECTORIES}", or inject at every step.'
        )
    if crop is not None and mode != PAPER:
        raise ValueError(
            f'crop works in the mode "{PAPER}" only: with trajectories every layer needs its whole canvas. '
            "Switch crop off or change the mode."
        )


def _together(
    layers: list[Layer], positive: Conditioning, negative: Conditioning, t0: float, crop: int | None
) -> tuple[Conditioning, Conditioning]:
    """Masked entries until t0, and the given prompts from there on."""

    def on_entry(layer: Layer) -> dict[str, Any]:
        cropped = crop is not None and not layer.is_background
        return layer.options() | ({keys.CROP: crop} if cropped else {})

    new_positive: Conditioning = []
    for _, options in _during(positive, 0.0, t0):
        for layer in layers:
            mine = [[text, _for_layers(options) | own | on_entry(layer)] for text, own in layer.positive]
            new_positive += _during(mine, 0.0, t0)
    new_positive += _handing_over(positive, t0)
    if not any(layer.vision or layer.negative is not None for layer in layers):
        return new_positive, negative
    new_negative: Conditioning = []
    for layer in share_negative(layers):
        given = negative if layer.negative is None else layer.negative
        new_negative += [[text, {**options, **on_entry(layer)}] for text, options in _during(given, 0.0, t0)]
    return new_positive, new_negative + _handing_over(negative, t0)


def _apart(
    layers: list[Layer], positive: Conditioning, negative: Conditioning, t0: float, _: int | None
) -> tuple[Conditioning, Conditioning]:
    """Entries for the whole canvas; the run hands each layer's to its own sampling, and the given ones to the rest."""
    until = {keys.TRAJECTORIES_UNTIL: t0}

    def on_entry(layer: Layer) -> dict[str, Any]:
        return {key: value for key, value in layer.options().items() if key != "mask"} | until

    new_positive = [
        [text, _for_layers(options) | own | on_entry(layer)]
        for _, options in positive
        for layer in layers
        for text, own in layer.positive
    ]
    new_negative = [
        [text, {**options, **on_entry(layer)}]
        for layer in layers
        for text, options in (negative if layer.negative is None else layer.negative)
    ]
    return (
        new_positive + [[text, options | until] for text, options in positive],
        new_negative + [[text, options | until] for text, options in negative],
    )


def _for_layers(options: dict[str, Any]) -> dict[str, Any]:
    """What of the global prompt's options applies to every layer too."""
    return {key: value for key, value in options.items() if key not in OF_ITS_TEXT}


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
    return [[text, {**options, keys.LAYERS_UNTIL: t0}] for text, options in _during(conditioning, t0, 1.0)]
