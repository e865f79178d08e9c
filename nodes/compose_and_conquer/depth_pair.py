"""The node that makes the two depth maps that Compose and Conquer reads."""

from collections.abc import Sequence

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from ...core.compose_and_conquer.depth_pair import (
    CUT_OUT,
    GROUND,
    VARIANTS,
    DepthPair,
    DepthPairError,
    pair_from_layouts,
    pair_from_one,
    pair_from_two,
)
from ...core.drawing.pictures import check_finite, colours_of
from ...core.drawing.resizing import resized
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.masks import is_same_aspect
from ..api import Layout, io
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refuse

TWO, ONE, PLANES = "two depth images", "one depth image and a mask", "layout"
SOURCES = (TWO, ONE, PLANES)
ALL_OF = {ONE: ("depth", "mask"), PLANES: ("layout",)}
ONE_OF = {TWO: ("foreground_depth", "background_depth")}
BACKGROUND_SHADE = 0.5  # of the preview: the background at half its brightness, so that the foreground stands out


class StageDepthPair(io.ComfyNode):
    """Depth images, a mask or a layout -> foreground depth, background depth, mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageDepthPair",
            display_name="Depth Pair",
            category=category_of(__name__),
            description="Makes the two depth maps that Depth Compose reads: the foreground's, and the background's "
            "with what the foreground hides. Near is bright; both are stretched to 0..1.",
            inputs=[
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    default=TWO,
                    tooltip="two depth images: of the cut-out foreground and of the background without it. one depth "
                    "image and a mask: what the mask hides is continued from around it. layout: regions as flat "
                    "planes, the nearest of them in front. Other inputs than the source's are not read.",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default=CUT_OUT,
                    tooltip="How the foreground's depth is cut where a mask is known. v2: cut out, then stretched, as "
                    "in training. v1: not cut out. v3: stretched, then cut out, which keeps how far it was.",
                ),
                io.Int.Input(
                    "margin",
                    default=8,
                    min=0,
                    max=512,
                    tooltip="One depth image: pixels around the mask that the background does not keep either. Higher "
                    "removes more of the blurred rim that depth models draw; too high removes neighbours.",
                ),
                io.Int.Input(
                    "front",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Layout: how many of its nearest regions are the foreground. Higher moves more of them "
                    "there; the others are the background.",
                ),
                io.Float.Input(
                    "ground",
                    default=GROUND,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Layout: how near the ground comes at the bottom of the background. Higher lets it rise "
                    "more steeply, 0 draws none.",
                ),
                io.Boolean.Input(
                    "round_boxes",
                    default=True,
                    tooltip="Layout: on, boxes become ellipses, nearer to most things' outlines; off, they stay boxes. "
                    "Regions with a mask have its outline.",
                ),
                io.Image.Input(
                    "foreground_depth",
                    optional=True,
                    tooltip="Two depth images: depth of the foreground, best of the cut-out picture. Brighter is "
                    "nearer. Not connected: an empty map, which leaves the foreground to the prompt.",
                ),
                io.Image.Input(
                    "background_depth",
                    optional=True,
                    tooltip="Two depth images: depth of the background, best of a picture without the foreground. "
                    "Brighter is nearer. Not connected: an empty map, which leaves the background to the prompt.",
                ),
                io.Image.Input(
                    "depth",
                    optional=True,
                    tooltip="One depth image: of the whole picture. Brighter is nearer.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the foreground is. Values of a half and more count, so lower ones make it smaller. "
                    "Two depth images need none; then it is where the foreground's depth stands out.",
                ),
                Layout.Input(
                    "layout",
                    optional=True,
                    tooltip="Layout: what lies where. A higher order of a region brings its plane nearer.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="foreground_depth", tooltip="Depth of the foreground, 0 (black) where nothing is."
                ),
                io.Image.Output(
                    display_name="background_depth", tooltip="Depth of the background, hidden parts included."
                ),
                io.Mask.Output(display_name="mask", tooltip="The foreground, 0 or 1, for looks and soft guidance."),
                io.Image.Output(
                    display_name="preview", tooltip="Both in one picture: the foreground before the darker background."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        source: str | None,
        foreground_depth: object = NOT_CONNECTED,
        background_depth: object = NOT_CONNECTED,
        depth: object = NOT_CONNECTED,
        mask: object = NOT_CONNECTED,
        layout: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse a source without its inputs before anything runs; a connected source is checked when it runs."""
        given = linked(depth=depth, mask=mask, layout=layout)
        given |= linked(foreground_depth=foreground_depth, background_depth=background_depth)
        return _missing(source, given) or True

    @classmethod
    def execute(
        cls,
        source: str,
        variant: str,
        margin: int,
        front: int,
        ground: float,
        round_boxes: bool,
        foreground_depth: Tensor | None = None,
        background_depth: Tensor | None = None,
        depth: Tensor | None = None,
        mask: Tensor | None = None,
        layout: LayoutValue | Sequence[LayoutValue] | None = None,
    ) -> io.NodeOutput:
        """Make the pair."""
        given = brought(depth=depth, mask=mask, layout=layout)
        given |= brought(foreground_depth=foreground_depth, background_depth=background_depth)
        refuse(_missing(source, given))
        if source == PLANES:
            layouts = [layout] if isinstance(layout, LayoutValue) else list(layout)
            pair = pair_from_layouts(layouts, front, ground, round_boxes=round_boxes)
        elif source == ONE:
            pair = pair_from_one(*_same_size(depth=_grey(depth), mask=_channel(mask)), variant, margin)
        else:
            pictures = {"foreground_depth": _grey(foreground_depth), "background_depth": _grey(background_depth)}
            pair = pair_from_two(*_same_size(**pictures, mask=_channel(mask)), variant)
        return io.NodeOutput(_picture(pair.foreground), _picture(pair.background), pair.mask[:, 0], _preview(pair))


def _missing(source: str | None, given: set[str]) -> str | None:
    """A sentence about an unknown source, or about inputs that it needs and has not; or None."""
    if source is not None and source not in SOURCES:
        return f'There is no source "{source}"; expected one of: {"; ".join(SOURCES)}. Choose one.'
    lost = [name for name in ALL_OF.get(source, ()) if name not in given]
    if lost:
        verb = "is" if len(lost) == 1 else "are"
        return (
            f'The source "{source}" needs {" and ".join(ALL_OF[source])}, but {" and ".join(lost)} {verb} not '
            "connected. Connect what is missing, or choose another source."
        )
    choice = ONE_OF.get(source, ())
    if choice and not given.intersection(choice):
        return (
            f'The source "{source}" needs {" or ".join(choice)}, and neither is connected. Connect one or both, or '
            "choose another source."
        )
    return None


def _grey(image: Tensor | None) -> Tensor | None:
    """One channel: (b h w c) -> (b 1 h w); an alpha channel does not count."""
    if image is None:
        return None
    check_finite(image, "A depth", "Some depth nodes give such for a flat picture; connect another one", DepthPairError)
    return reduce(colours_of(image), "b h w c -> b 1 h w", "mean")


def _channel(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else rearrange(mask.float(), "... h w -> (...) 1 h w")


def _same_size(**maps: Tensor | None) -> list[Tensor | None]:
    """Give all maps the first one's size and the largest batch; a single map serves the whole batch."""
    there = {name: each for name, each in maps.items() if each is not None}
    first, *others = there
    height, width = there[first].shape[-2:]
    number = max(len(each) for each in there.values())
    for name, each in there.items():
        if len(each) not in (1, number):
            raise DepthPairError(
                f"{name} has {len(each)} pictures, another input has {number}. Give each as many as the others, or one."
            )
    for name in others:
        rows, columns = there[name].shape[-2:]
        if not is_same_aspect(rows, columns, height, width):
            raise DepthPairError(
                f"{name} has {columns} x {rows} pixels, which is not the shape of {first} ({width} x {height}). Give "
                "both the same aspect ratio."
            )
    fitted = [None if each is None else _resize(each, height, width) for each in maps.values()]
    return [None if each is None else each.expand(number, -1, -1, -1) for each in fitted]


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    """To this size, averaging where it becomes smaller; the very same where it has it."""
    if maps.shape[-2:] == (height, width):
        return maps
    return resized(maps, (height, width))


def _picture(depth: Tensor) -> Tensor:
    return repeat(depth, "b 1 h w -> b h w c", c=3).contiguous()


def _preview(pair: DepthPair) -> Tensor:
    return _picture(torch.where(pair.mask > 0, (1 + pair.foreground) / 2, BACKGROUND_SHADE * pair.background))
