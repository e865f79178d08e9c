"""What each method is for: what it needs, what it is good and bad at, and how it paints a layout."""

from collections.abc import Callable
from dataclasses import dataclass

from ..graphs import sali, soft
from ..graphs.builder import Graph, Method
from ..graphs.methods import METHODS
from ..painter import Painter
from ..sets.sets import Item
from .graphs import composed, drafted, inserted, layered

# (painter of the server that gets what the graph loads, what is asked for) -> graph
Draw = Callable[[Painter, Item], Graph]


@dataclass(frozen=True)
class Way:
    """One method.

    Attributes:
        nodes: whose work it is, as the editor calls them.
        draw: makes its graph.
        method: its name in the rows of `evaluate networks`; "" for one that is not measured there.
        needs: beside a checkpoint and a layout.
        good: what to take it for.
        bad: what not.
        on_transformer: whether it runs on the embedded transformer.
        counted: whether all it costs are rows of the checkpoint's network.
    """

    nodes: str
    draw: Draw
    method: str = ""
    needs: str = "-"
    good: str = ""
    bad: str = ""
    on_transformer: bool = True
    counted: bool = True


def _of(method: Method) -> Draw:
    return lambda painter, item: method(item.layout, item.seed, 1, painter.masks(item))


WAYS: dict[str, Way] = {
    "plain": Way(
        "KSampler alone",
        _of(METHODS["plain"]),
        "plain",
        good="what the checkpoint does by itself, to compare with",
        bad="nothing is placed",
    ),
    "set_mask": Way(
        "ComfyUI's *Conditioning (Set Mask)*",
        _of(METHODS["set_mask"]),
        "set_mask",
        good="no custom node",
        bad="things melt into their places, and are often missing",
    ),
    "lrdiff": Way(
        "**Layered Rendering**",
        _of(METHODS["lrdiff"]),
        "lrdiff",
        good="**begin here**: things stand where they should, on every family, also several and one over another",
        bad="costs rows of the network for each region while the places are decided; a small thing in a large box",
    ),
    "guidance": Way(
        "**Attention Guidance**",
        _of(sali.METHODS[sali.GUIDED]),
        sali.GUIDED,
        needs="the model's gradient (no GGUF, int8, nf4), memory for it",
        good="one picture that hangs together: light and poses fit, nothing has an edge",
        bad="outlines are loose; things of the same kind are confused; weak on the transformer",
    ),
    "spatial_latent": Way(
        "**Spatial Latent** and **Attention Guidance**",
        _of(sali.METHODS[sali.BOTH]),
        sali.BOTH,
        needs="as above; a reference picture of each thing, or it draws them",
        good="many things at once; a look that a reference picture gives",
        bad="each thing is drawn first, which takes time; not told apart from guidance alone in the measurements",
    ),
    "soft": Way(
        "**Soft Guidance**",
        _of(soft.METHODS["soft"]),
        "soft",
        good="nearly free; keeps colours and names from wandering, beside any other method",
        bad="places nothing by itself",
    ),
    "region_tokens": Way(
        "**Region Tokens** and **Soft Guidance**",
        _of(soft.METHODS["region_tokens"]),
        good="nearly free; a prompt or a reference picture for each region",
        bad="places little by itself",
    ),
    "depth": Way(
        "**Depth Pair** and **Depth Compose**",
        lambda painter, item: composed(item.layout, item.seed),
        needs="fusers for the checkpoint (SD 1.5: published; embedded: Sticker World)",
        good="what lies in front of what, and outlines; the background goes on behind the foreground",
        bad="two depths, not any number of things; no transformer",
        on_transformer=False,
    ),
    "tcig": Way(
        "**TCIG Draft** and **TCIG Refine**",
        drafted,
        needs="a VQGAN, a CLIP and a segmenter that know the things",
        good="fills a mask exactly, with any checkpoint for the second stage",
        bad="slow; its draft is rough, and stage two must repaint it",
        counted=False,
    ),
    "layers": Way(
        "**Layer by Layer**",
        lambda painter, item: layered(item.layout, item.seed),
        needs="a Text2Layer file for the checkpoint (embedded: Sticker World; else you train one)",
        good="layers that can be moved, saved and edited afterwards, with what lies behind them",
        bad="a whole run for each layer; no transformer",
        on_transformer=False,
        counted=False,
    ),
    "edit": Way(
        "**Insert Objects** and **Edit Picture in Layers**",
        lambda painter, item: inserted(item.layout, item.seed),
        needs="a picture: here the empty place, painted first",
        good="changes a picture that there is; the rest stays, to the pixel if you like",
        bad="inserts weakly without a colour or a reference picture",
    ),
}
