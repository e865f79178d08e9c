"""The runs of `bench growth`: what each method has the network evaluate in a step, and methods that reach inside it.

Everything of ComfyUI is imported inside functions, after `start_comfyui`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.attention.recorder import AttentionRecorder
from ...core.attention.sites import MIDDLE_AND_FIRST_UP
from ...core.attention_guidance.energies import in_box_share
from ...core.attention_guidance.target import Target
from ...core.attention_guidance.transformer_maps import energy_of_blocks
from ...core.layered_rendering.parts import DEFAULT_MARGIN
from ...core.layered_rendering.vision_guidance import VisionGuidance
from ...core.layout.layout import Layout
from ...core.layout.masks import box_coverage
from ...core.layout.region import Region
from .growth import Point
from .joint_network import BY_BIAS, BY_MERGE, REGION_TOKENS

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

CELL = 8  # pixels
WIDTH = 768  # of the text
ROWS = 6  # of places for boxes beside each other, and as many columns
SIDE = 40**-0.5  # of a box, of the canvas
STACKED_SIDE, SHIFT = 0.58, 0.05  # of boxes over each other
CFG = 7.5
SIGMAS = (0.9, 0.8)
BLOCKS = "5-6"  # of twelve, read by guidance


@dataclass(frozen=True)
class Call:
    """The rows of an evaluation of the network.

    Attributes:
        rows: of it.
        height: of the latent, in cells.
        width: of the latent.
        tokens: of the text.
    """

    rows: int
    height: int
    width: int
    tokens: int


def layout_of(point: Point) -> Layout:
    """Boxes beside each other, or over each other."""
    boxes = []
    for i in range(point.regions):
        if point.stacked:
            x = y = SHIFT * i
            side = STACKED_SIDE
        else:
            x, y, side = (i % ROWS) / ROWS, (i // ROWS) / ROWS, SIDE
        boxes.append((x, y, x + side, y + side))
    regions = tuple(Region(f"thing {i}", box=box) for i, box in enumerate(boxes))
    return Layout(point.canvas, point.canvas, "things", "a meadow", regions)


class Runs:
    """A network that evaluates nothing, and what methods ask of it."""

    def __init__(self, model: "ModelPatcher", channels: int, pooled: int) -> None:
        import comfy.patcher_extension

        self.channels, self.pooled = channels, pooled
        self.calls: list[Call] = []
        self.model = model.clone()
        self.model.model.memory_usage_factor = 0.0  # so that the machine's memory does not divide the batches
        kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
        self.model.add_wrapper_with_key(kind, "growth", self._note)

    def _note(self, _executor: object, x: Tensor, _t: Tensor, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        text = kwargs["c_crossattn"] if "c_crossattn" in kwargs else args[1]
        self.calls.append(Call(len(x), x.shape[-2], x.shape[-1], text.shape[1]))
        return torch.zeros_like(x)

    def calls_of(self, method: str, point: Point) -> list[Call]:
        """What a step of a method has the network evaluate."""
        import comfy.sample
        import comfy.samplers

        model, positive, negative = getattr(self, method)(point)
        self.calls.clear()
        shape = (1, self.channels, point.canvas // CELL, point.canvas // CELL)
        euler = comfy.samplers.sampler_object("euler")
        noise, empty = torch.ones(shape), torch.zeros(shape)
        comfy.sample.sample_custom(
            model, noise, CFG, euler, torch.tensor(SIGMAS), positive, negative, empty, disable_pbar=True
        )
        return list(self.calls)

    def text(self, point: Point, **options: object) -> list:
        """A prompt."""
        return [[torch.zeros(1, point.tokens, WIDTH), {"pooled_output": torch.zeros(1, self.pooled), **options}]]

    def plain(self, point: Point) -> tuple:
        """A prompt and a negative one."""
        return self.model, self.text(point), self.text(point)

    def set_mask(self, point: Point) -> tuple:
        """Conditioning (Set Mask): a prompt for each region and one for what is free."""
        masks = layout_of(point).visible_masks(point.canvas, point.canvas)
        positive = [entry for mask in masks for entry in self.text(point, mask=mask[None], mask_strength=1.0)]
        return self.model, positive, self.text(point)

    def set_area(self, point: Point) -> tuple:
        """Conditioning (Set Area): a prompt for each box, and one for the whole canvas."""
        cells, positive = point.canvas // CELL, self.text(point)
        for region in layout_of(point).regions:
            left, top, right, bottom = (round(cells * side) for side in region.box)
            positive += self.text(point, area=(bottom - top, right - left, top, left), strength=1.0)
        return self.model, positive, self.text(point)

    def multidiffusion(self, point: Point) -> tuple:
        """The evaluation's baseline, bootstrapped."""
        from ..baselines.multidiffusion.method import paint_regions

        runs = self

        class Clip:
            def tokenize(self, text: str) -> str:
                return text

            def encode_from_tokens_scheduled(self, _text: str) -> list:
                return runs.text(point)

        class Vae:
            def encode(self, pictures: Tensor) -> Tensor:
                return torch.zeros(len(pictures), runs.channels, CELL, CELL)

        return paint_regions(self.model, Clip(), Vae(), layout_of(point), *[self.text(point)] * 2, 0.8, 0)

    def layered(self, point: Point, crop: int | None = None) -> tuple:
        """Layered Rendering with a vector for each region, so that each has a negative prompt of its own."""
        from ...core.layered_rendering.comfy.render import render_in_layers
        from ...core.layered_rendering.comfy.settings import BACKGROUND, LayerSettings, Rendering

        names = (*(str(i + 1) for i in range(point.regions)), BACKGROUND)
        rendering = Rendering(
            1.0,
            1.0,
            guidance=VisionGuidance("vector", vector=(1.0,) * self.channels),
            crop=crop,
            settings=[LayerSettings(name, positive=self.text(point)) for name in names],
        )
        prompts = self.text(point), self.text(point)
        return render_in_layers(self.model, None, None, layout_of(point), *prompts, rendering)

    def layered_crop(self, point: Point) -> tuple:
        """The same on the layers' surroundings."""
        return self.layered(point, DEFAULT_MARGIN)


class Inside:
    """Methods that read or change the attention of a network, in a step with CFG."""

    def __init__(self, model: "ModelPatcher", channels: int, pooled: int) -> None:
        self.model, self.channels, self.pooled = model, channels, pooled

    def job(self, method: str, point: Point) -> Callable[[], object]:
        """A step, which can be repeated."""
        return torch.inference_mode()(getattr(self, method)(point))

    def _entries(self, point: Point) -> tuple[Tensor, Tensor, list[list[dict[str, object]]]]:
        import comfy.sampler_helpers
        import comfy.samplers

        cells = point.canvas // CELL
        x = torch.zeros(1, self.channels, cells, cells)
        text = torch.zeros(1, point.tokens, WIDTH)
        given = [[text, {"pooled_output": torch.zeros(1, self.pooled)}]]
        named = {name: comfy.sampler_helpers.convert_cond(given) for name in ("positive", "negative")}
        found = comfy.samplers.process_conds(self.model.model, x, named, x.device)
        return x, torch.tensor(SIGMAS[:1]), [found["positive"], found["negative"]]

    def plain(self, point: Point) -> Callable[[], object]:
        """An evaluation of both prompts."""
        import comfy.samplers

        x, sigma, entries = self._entries(point)
        return lambda: comfy.samplers.calc_cond_batch(self.model.model, entries, x, sigma, {})

    def soft_bias(self, point: Point, largest: int = BY_BIAS) -> Callable[[], object]:
        """Soft guidance with tokens for every region."""
        import comfy.conds
        import comfy.patcher_extension
        import comfy.samplers

        from ...core.soft_guidance.comfy.memory import WRAPPER, Memory
        from ...core.soft_guidance.comfy.run import SoftRun
        from ...core.soft_guidance.comfy.tokens import RegionTokens
        from ...core.soft_guidance.soft_guidance import AREA

        x, sigma, entries = self._entries(point)
        masks = layout_of(point).masks(*x.shape[-2:])
        regions = [RegionTokens(torch.zeros(1, REGION_TOKENS, WIDTH), mask[None]) for mask in masks]
        entries[0][0]["model_conds"][WRAPPER] = comfy.conds.CONDConstant(tuple((each, AREA) for each in regions))
        options: dict[str, object] = {}
        kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
        evaluate = SoftRun(Memory(largest)).evaluate
        comfy.patcher_extension.add_wrapper_with_key(kind, WRAPPER, evaluate, options, is_model_options=True)
        return lambda: comfy.samplers.calc_cond_batch(self.model.model, entries, x, sigma, options)

    def soft_merge(self, point: Point) -> Callable[[], object]:
        """The same without a mask of all pairs; transformers alone have it."""
        return self.soft_bias(point, BY_MERGE)

    def guidance(self, point: Point) -> Callable[[], object]:
        """One iteration of attention guidance, and the evaluation of both prompts after it."""
        from ...core.attention_guidance.comfy.gradients import AttentionGradient

        plain = self.plain(point)
        x, sigma, entries = self._entries(point)
        shape, tokens = tuple(x.shape[-2:]), torch.arange(1, 1 + point.regions)
        boxes = [region.box for region in layout_of(point).regions]
        targets = [Target((i,), box_coverage(box, *shape)) for i, box in enumerate(boxes)]
        is_unet = self.channels == 4
        which = MIDDLE_AND_FIRST_UP if is_unet else BLOCKS

        def recorder(_: dict[str, object], known: frozenset) -> AttentionRecorder:
            return AttentionRecorder(which, shape, [tokens], known=known)

        def measure(_: dict[str, object], maps: dict) -> Tensor:
            if is_unet:
                return in_box_share(maps, targets)
            return energy_of_blocks(lambda found: in_box_share(found, targets), maps)

        gradient = AttentionGradient(self.model.model, entries[0], recorder, measure)
        return lambda: (gradient(x, sigma, {}), plain())


def rows_of(calls: list[Call]) -> dict[Call, int]:
    """Rows of each kind of call, which stands there with one."""
    found = Counter[Call]()
    for call in calls:
        found[Call(1, call.height, call.width, call.tokens)] += call.rows
    return dict(found)
