"""One function per method: a layout in, a graph in ComfyUI's API format out."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.layout.layout import Layout
from ...core.layout.prompts import fill_prompt
from ...core.layout.region import Region
from ...sticker_world.world.concepts import CANVAS
from .builder import NEGATIVE, Graph, GraphBuilder, Link, Method
from .lrdiff import LRDiff
from .plain import plain


def set_mask(layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
    """ComfyUI's own regional prompting: one masked prompt per region, and the background's prompt everywhere else.

    The masks are a partition in painter's order, as layered rendering has them, so that the comparison is fair.

    Args:
        layout: what is asked for.
        seed: of the noise.
        pictures: how many to paint in one batch.
        masks: file names in the server's input folder, one per region in painter's order; empty takes the boxes.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    regions = layout.sorted_regions()
    shapes = region_masks(builder, regions, masks)
    free = _constant_mask(builder, 1.0)
    positive: Link | None = None
    for region, shape in reversed(list(zip(regions, shapes, strict=True))):
        seen = _combine(builder, free, shape, "multiply")
        free = _combine(builder, free, [builder.add("InvertMask", mask=shape), 0], "multiply")
        positive = _add_masked(builder, positive, builder.encode(clip, region.prompt or region.phrase), seen)
    positive = _add_masked(builder, positive, builder.encode(clip, layout.background), free)
    return builder.show(builder.painted(model, positive, builder.encode(clip, NEGATIVE), vae, seed, pictures))


def region_masks(builder: GraphBuilder, regions: Sequence[Region], masks: Sequence[str]) -> list[Link]:
    """MASK of every region: a file on the server where there is one, else its box."""
    return [_load_mask(builder, name) for name in masks] or [_box_mask(builder, region.box) for region in regions]


def _constant_mask(builder: GraphBuilder, value: float, width: int = CANVAS, height: int = CANVAS) -> Link:
    return [builder.add("SolidMask", value=value, width=width, height=height), 0]


def _combine(builder: GraphBuilder, first: Link, second: Link, operation: str, x: int = 0, y: int = 0) -> Link:
    return [builder.add("MaskComposite", destination=first, source=second, x=x, y=y, operation=operation), 0]


def _load_mask(builder: GraphBuilder, name: str) -> Link:
    return [builder.add("LoadImageMask", image=name, channel="red"), 0]


def _box_mask(builder: GraphBuilder, box: tuple[float, float, float, float]) -> Link:
    x0, y0, x1, y1 = (round(value * CANVAS) for value in box)
    inside = _constant_mask(builder, 1.0, x1 - x0, y1 - y0)
    return _combine(builder, _constant_mask(builder, 0.0), inside, "add", x0, y0)


def _add_masked(builder: GraphBuilder, before: Link | None, prompt: Link, mask: Link) -> Link:
    settings = {"strength": 1.0, "set_cond_area": "default"}
    masked = [builder.add("ConditioningSetMask", conditioning=prompt, mask=mask, **settings), 0]
    if before is None:
        return masked
    return [builder.add("ConditioningCombine", conditioning_1=before, conditioning_2=masked), 0]


@dataclass(frozen=True)
class MultiDiffusion:
    """A method: MultiDiffusion with bootstrapping, from `baselines`, with what Layered Rendering has beside its idea.

    Defaults are the best of the tuning layouts, so that the competitor is at its best too.

    Attributes:
        bootstrapped: share of the run. The paper has T_init = 800 of 1000 steps, the published script 20 of 50.
        end_at: share of the run after which the whole prompt takes over, as in Layered Rendering; the paper has 1.
        background_negative: negative prompt of the background; the paper has that of all regions, "".
    """

    bootstrapped: float = 0.6
    end_at: float = 0.9
    background_negative: str = NEGATIVE

    def __call__(self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
        """Build the graph; the layout brings its own masks."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        negative = builder.encode(clip, NEGATIVE)
        unwanted = fill_prompt(self.background_negative, layout, None, "negative prompt of the background")
        painting = builder.add(
            "EvaluationMultiDiffusion",
            model=model,
            clip=clip,
            vae=vae,
            layout=builder.layout(layout),
            negative=negative,
            background_negative=builder.encode(clip, unwanted),
            bootstrapped=self.bootstrapped,
            seed=seed,
        )
        prompts: list[Link] = [[painting, 1], [painting, 2]]
        if self.end_at < 1:
            whole = builder.encode(clip, layout.prompt), negative
            prompts = [self._handed_over(builder, *each) for each in zip(prompts, whole, strict=True)]
        return builder.show(builder.painted([painting, 0], *prompts, vae, seed, pictures))

    def _handed_over(self, builder: GraphBuilder, regions: Link, whole: Link) -> Link:
        """The regions' prompts up to end_at, then that of the whole picture."""
        parts = [
            [builder.add("ConditioningSetTimestepRange", conditioning=prompt, start=start, end=end), 0]
            for prompt, start, end in ((regions, 0.0, self.end_at), (whole, self.end_at, 1.0))
        ]
        return [builder.add("ConditioningCombine", conditioning_1=parts[0], conditioning_2=parts[1]), 0]


METHODS: dict[str, Method] = {
    "plain": plain,
    "set_mask": set_mask,
    "multidiffusion": MultiDiffusion(),
    "lrdiff": LRDiff(),
}
