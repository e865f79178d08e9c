"""Real things for the links of a random graph, made by ComfyUI's own nodes and by the embedded models' loaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .texts import PROMPTS, WORDS
from .values import VALID

if TYPE_CHECKING:
    from .graphs import Link, RandomGraph

Source: TypeAlias = "Callable[[RandomGraph, int], Link]"

CHECKPOINT = "sticker_world.safetensors"
# Those of ComfyUI's that run in one step; kl_optimal is NaN there by itself.
SAMPLERS = (
    "euler euler euler_ancestral heun dpm_2 lms dpmpp_2s_ancestral dpmpp_sde dpmpp_2m dpmpp_2m_sde ddpm lcm ipndm deis "
    "res_multistep gradient_estimation er_sde ddim uni_pc"
).split()
SCHEDULERS = ("normal", "normal", "simple", "karras", "exponential", "sgm_uniform", "ddim_uniform", "beta")
PICTURES = 3  # at most in one batch


def _checkpoint(slot: int) -> Source:
    def load(graph: RandomGraph, depth: int) -> Link:
        return [graph.once("CheckpointLoaderSimple", ckpt_name=CHECKPOINT), slot]

    return load


def _patched(graph: RandomGraph, depth: int) -> Link:
    # Not ComfyUI's SelfAttentionGuidance: it breaks by itself on a negative prompt that begins later in the run.
    model = graph.link("MODEL", depth + 1)
    kind, values = graph.random.choice(
        [
            ("PerturbedAttentionGuidance", {"scale": 2.0}),
            ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
            ("RescaleCFG", {"multiplier": 0.7}),
            ("FreeU", {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}),
            ("ModelSamplingDiscrete", {"sampling": graph.random.choice(["eps", "v_prediction"]), "zsnr": False}),
        ]
    )
    return [graph.add(kind, model=model, **values), 0]


def _flat_picture(graph: RandomGraph, depth: int) -> Link:
    width, height = graph.size()
    colour = graph.random.choice([0, 0xFFFFFF, graph.random.randrange(1 << 24)])
    return [graph.add("EmptyImage", width=width, height=height, batch_size=graph.batch(), color=colour), 0]


def _painted_picture(graph: RandomGraph, depth: int) -> Link:
    return [graph.add("VAEDecode", samples=_painted_latent(graph, depth), vae=graph.link("VAE", 9)), 0]


def _stickers(graph: RandomGraph, depth: int) -> Link:
    """The shipped layers' picture, at the graph's size."""
    width, height = graph.size()
    loaded = graph.once("StageLoadLayers", file="sticker_world_meadow.ora")
    values = {"upscale_method": "area", "width": width, "height": height, "crop": "disabled"}
    return [graph.add("ImageScale", image=[loaded, 0], **values), 0]


def _changed_picture(graph: RandomGraph, depth: int) -> Link:
    image = graph.link("IMAGE", depth + 1)
    changes = [
        ("ImageInvert", {}),
        ("ImageFlip", {"flip_method": "y-axis: horizontally"}),
        ("ImageBlur", {"blur_radius": 3, "sigma": 1.0}),
        ("ImageFromBatch", {"batch_index": 0, "length": 1}),
    ]
    if graph.mood != VALID:
        changes += [
            ("RepeatImageBatch", {"amount": graph.random.randint(1, PICTURES)}),
            ("ImageBatch", {"image2": image}),
        ]
    kind, values = graph.random.choice(changes)
    return [graph.add(kind, **{"image1" if kind == "ImageBatch" else "image": image}, **values), 0]


def _solid_mask(graph: RandomGraph, depth: int) -> Link:
    width, height = graph.size()
    value = 1.0 if graph.mood == VALID else graph.random.choice([1.0, 1.0, 0.0, 0.5, 0.01])
    return [graph.add("SolidMask", value=value, width=width, height=height), 0]


def _boxed_mask(graph: RandomGraph, depth: int) -> Link:
    width, height = graph.size()
    empty = graph.add("SolidMask", value=0.0, width=width, height=height)
    full = graph.add("SolidMask", value=1.0, width=max(8, width // 2), height=max(8, height // 2))
    place = {"x": graph.random.randrange(width // 2), "y": graph.random.randrange(height // 2), "operation": "add"}
    return [graph.add("MaskComposite", destination=[empty, 0], source=[full, 0], **place), 0]


def _changed_mask(graph: RandomGraph, depth: int) -> Link:
    mask = graph.link("MASK", depth + 1)
    kind, values = graph.random.choice(
        [
            ("InvertMask", {}),
            ("GrowMask", {"expand": graph.random.randint(-8, 8), "tapered_corners": True}),
            ("FeatherMask", {"left": 4, "top": 4, "right": 4, "bottom": 4}),
            ("ThresholdMask", {"value": 0.5}),
        ]
    )
    return [graph.add(kind, mask=mask, **values), 0]


def _mask_of_picture(graph: RandomGraph, depth: int) -> Link:
    if graph.mood == VALID:
        return _boxed_mask(graph, depth)
    return [graph.add("ImageToMask", image=graph.link("IMAGE", depth + 1), channel="red"), 0]


def _empty_latent(graph: RandomGraph, depth: int) -> Link:
    width, height = graph.size()
    return [graph.add("EmptyLatentImage", width=width, height=height, batch_size=graph.batch()), 0]


def _painted_latent(graph: RandomGraph, depth: int) -> Link:
    return _run(graph, depth, _checkpoint(0)(graph, depth))


def _run(graph: RandomGraph, depth: int, model: Link, positive: Link | None = None) -> Link:
    graph.painted += 1
    latent, positive = _empty_latent(graph, depth), positive or _encoded(graph, depth)
    links = {"model": model, "positive": positive, "negative": _encoded(graph, depth), "latent_image": latent}
    values = {"seed": graph.random.randrange(1000), "steps": 1, "cfg": 3.0, "denoise": 1.0}
    return [graph.add("KSampler", **links, **values, sampler_name="euler", scheduler="normal"), 0]


def _encoded_latent(graph: RandomGraph, depth: int) -> Link:
    return [graph.add("VAEEncode", pixels=graph.link("IMAGE", depth + 1), vae=graph.link("VAE", 9)), 0]


def _masked_latent(graph: RandomGraph, depth: int) -> Link:
    samples, mask = graph.link("LATENT", depth + 1), graph.link("MASK", depth + 1)
    return [graph.add("SetLatentNoiseMask", samples=samples, mask=mask), 0]


def _encoded(graph: RandomGraph, depth: int) -> Link:
    text = graph.random.choice([*PROMPTS[0], "(a dog:1.2) and a cat", "a dog " * 60])
    return [graph.add("CLIPTextEncode", clip=graph.link("CLIP", 9), text=text), 0]


def _changed_prompt(graph: RandomGraph, depth: int) -> Link:
    entry = graph.link("CONDITIONING", depth + 1)
    choice = graph.random.randrange(5)
    if choice == 0:
        return [graph.add("ConditioningZeroOut", conditioning=entry), 0]
    if choice == 1:
        start = graph.random.choice([0.0, 0.3])
        return [graph.add("ConditioningSetTimestepRange", conditioning=entry, start=start, end=1.0), 0]
    if choice == 2:
        values = {"strength": 1.0, "set_cond_area": "default", "mask": _boxed_mask(graph, depth)}
        return [graph.add("ConditioningSetMask", conditioning=entry, **values), 0]
    other = _encoded(graph, depth)
    if choice == 3:
        return [graph.add("ConditioningCombine", conditioning_1=entry, conditioning_2=other), 0]
    return [graph.add("ConditioningConcat", conditioning_to=entry, conditioning_from=other), 0]


def _sigmas(graph: RandomGraph, depth: int) -> Link:
    values = {"scheduler": graph.random.choice(SCHEDULERS), "steps": graph.random.randint(1, 3)}
    denoise = graph.random.choice([1.0, 0.5])
    made = graph.add("BasicScheduler", model=graph.link("MODEL", 9), denoise=denoise, **values)
    return [graph.add("FlipSigmas", sigmas=[made, 0]), 0] if graph.random.random() < 0.15 else [made, 0]


def _noise(graph: RandomGraph, depth: int) -> Link:
    return [graph.add("RandomNoise", noise_seed=graph.random.randrange(1000)), 0]


def _seen(graph: RandomGraph, depth: int) -> Link:
    vision, image = graph.link("CLIP_VISION", 9), graph.link("IMAGE", depth + 1)
    return [graph.add("CLIPVisionEncode", clip_vision=vision, image=image, crop="center"), 0]


def _loaded(kind: str, slot: int, **values: str) -> Source:
    return lambda graph, depth: [graph.once(kind, **values), slot]


def _segmenter(graph: RandomGraph, depth: int) -> Link:
    # The other two know half of the things each.
    special = graph.mood != VALID and graph.random.random() < 0.2
    name = graph.random.choice(("sticker_world_animals", "sticker_world_things")) if special else "sticker_world"
    return [graph.once("StageSegmenterLoader", folder=name), 0]


def _layout(graph: RandomGraph, depth: int) -> Link:
    width, height = graph.size()
    lines, boxes = [], ["0.05 0.35 0.45 0.9", "0.55 0.35 0.95 0.9", "0.2 0.1 0.8 0.6", "0 0 1 1"]
    for number in range(graph.random.randint(1, 3)):
        lines.append(f"{WORDS[number]}: {graph.random.choice(boxes)}")
    text = "\n".join(lines)
    return [graph.add("StageLayout", layout=text, prompt="", background="", width=width, height=height), 0]


_layered_model = _loaded("StageText2LayerLoader", 0, text2layer_name="sticker_world_text2layer.safetensors")


def _layered_latent(graph: RandomGraph, depth: int) -> Link:
    """Of a picture in two layers: encoded, or painted by the model of such."""
    if graph.random.random() < 0.5:
        vae, picture = graph.link("STAGE_LAYERED_VAE", 9), _flat_picture(graph, depth)
        return [graph.add("StageLayersEncode", foreground=picture, background=picture, layered_vae=vae), 0]
    return _run(graph, depth, _layered_model(graph, depth))


def _guided_latent(graph: RandomGraph, depth: int) -> Link:
    layout = _layout(graph, depth)
    values = {"energy": "chen", "strength": 1.0, "settings": "own", "iterations": 1, "start_at": 0.0, "end_at": 1.0}
    values |= {"threshold": 0.0, "step_rule": "normalised", "sites": "half of the latent"}
    links = {"model": _checkpoint(0)(graph, depth), "clip": _checkpoint(1)(graph, depth), "layout": layout}
    guided = graph.add("StageAttentionGuidance", **links, **values)
    prompt = graph.add("CLIPTextEncode", clip=links["clip"], text=[layout[0], 1])
    return _run(graph, depth, [guided, 0], [prompt, 0])


# What a type alone does not say: "node.input" -> what fits.
ONLY: dict[str, Source] = {
    "StageLayersDecode.samples": _layered_latent,
    "StageLayerByLayer.model": _layered_model,
    "StageGuidanceReport.latent": _guided_latent,
}
# Which optional links belong together, one of these at a time.
_FILL = ("model", "vae", "positive")
TOGETHER: dict[str, tuple[tuple[str, ...], ...]] = {
    "StageSoftGuidance": (("clip", "layout"), ("exemplars", "mask"), ("regions",), ("clip", "layout", "regions")),
    "StageSplitLayers": (_FILL, (*_FILL, "negative"), ("background",)),
    "StageComposite": (
        ("layers",),
        ("picture_1", "mask_1"),
        ("background", "picture_1", "mask_1", "picture_2", "mask_2"),
        ("background", "picture_1"),
    ),
    "StageDepthPair": (("foreground_depth", "background_depth", "depth", "mask", "layout"),),
    "StageDepthCompose": (("foreground_depth", "background_depth"), ("exemplars", "mask"), ("foreground_depth",)),
    "StageExemplars": (("foreground",), ("foreground", "background"), ("background",)),
    "StageRegionTokens": (("conditioning",), ("conditioning", "before")),
    "StageLayout": ((),),
    "StageLayoutCanvas": ((), ("image",), ("start",)),
    "StageLayerByLayer": ((), ("layout",)),
    "StageLayeredRendering": (("vae",), ("vae", "layers")),
    "StageTCIGDraft": ((), ("image",)),
    "StageSpatialLatent": ((), ("segmenter",), ("segmenter",), ("images", "masks"), ("background_image",)),
}

# Type -> what makes it, each as often as it stands here. The first is cheap and needs nothing.
SOURCES: dict[str, tuple[Source, ...]] = {
    "MODEL": (_checkpoint(0), _checkpoint(0), _checkpoint(0), _patched),
    "CLIP": (_checkpoint(1),),
    "VAE": (_checkpoint(2),),
    "IMAGE": (_flat_picture, _painted_picture, _stickers, _changed_picture),
    "MASK": (_boxed_mask, _boxed_mask, _solid_mask, _changed_mask, _mask_of_picture),
    "LATENT": (_empty_latent, _painted_latent, _encoded_latent, _masked_latent),
    "CONDITIONING": (_encoded, _encoded, _changed_prompt),
    "SIGMAS": (_sigmas,),
    "NOISE": (_noise,),
    "CLIP_VISION": (_loaded("StageCLIPLoader", 1, folder="sticker_world"),),
    "CLIP_VISION_OUTPUT": (_seen,),
    "LAYERS": (_loaded("StageLoadLayers", 2, file="sticker_world_meadow.ora"),),
    "STAGE_CLIP": (_loaded("StageCLIPLoader", 0, folder="sticker_world"),),
    "STAGE_CNC": (_loaded("StageCnCLoader", 0, cnc_name="sticker_world_cnc.safetensors"),),
    "STAGE_LAYERED_VAE": (_loaded("StageText2LayerLoader", 1, text2layer_name="sticker_world_text2layer.safetensors"),),
    "STAGE_SEGMENTER": (_segmenter,),
    "STAGE_VQGAN": (_loaded("StageVQGANLoader", 0, vqgan_name="sticker_world"),),
    "STAGE_LAYOUT": (_layout,),
}
