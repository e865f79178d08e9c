"""Pictures from a real ComfyUI server: what a method paints for an item, and how long it took."""

import hashlib
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..commands.comfy_api import Result
from ..commands.comfy_server import ComfyServer
from ..commands.environment import CLONE, current_environment
from ..sticker_world.world.concepts import CANVAS
from .graphs.builder import CHECKPOINT, PICTURES, Graph, Method
from .graphs.counted import COUNTED, counted
from .graphs.plain import plain_prompt
from .sets.sets import Item

BASELINES = Path(__file__).parent / "baselines.yaml"
TIMEOUT = 600.0  # seconds per prompt; a slow machine paints a batch in far less


def evaluation_server(*configurations: Path) -> ComfyServer:
    """A ComfyUI with this pack and with the published competitors in `baselines`, which no user's ComfyUI loads.

    Args:
        configurations: more files for ComfyUI's --extra-model-paths-config.
    """
    files = map(str, (BASELINES, *configurations))
    return ComfyServer(current_environment(), CLONE, arguments=("--extra-model-paths-config", *files))


class Painting(NamedTuple):
    """What a graph of a method gave.

    Attributes:
        pictures: uint8 (h w 3), of one batch.
        seconds: on the server, for each of them; None for what was not painted.
        evaluations: rows that the network evaluated, for each of them; None for what was not painted.
    """

    pictures: list[np.ndarray]
    seconds: float | None
    evaluations: int | None


@dataclass
class Painter:
    """Queues graphs on one server; masks and pictures are uploaded once.

    Attributes:
        server: a running one; `evaluation_server` makes it.
    """

    server: ComfyServer
    _uploaded: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _pictures: dict[str, str] = field(default_factory=dict)

    def paint(self, method: Method, item: Item, pictures: int, checkpoint: str = CHECKPOINT) -> Painting:
        """Paint an item with a method, in one batch; needs an `evaluation_server`.

        Raises:
            PromptRejected: the server does not accept the graph.
            PromptFailed: a node failed.
        """
        return self.paint_counted(method(item.layout, item.seed, pictures, self.masks(item)), checkpoint)

    def paint_prompt(self, prompt: str, seed: int, checkpoint: str = CHECKPOINT) -> Painting:
        """Paint one picture of a plain prompt; needs and raises as `paint`."""
        return self.paint_counted(plain_prompt(prompt, seed, 1), checkpoint)

    def paint_counted(self, graph: Graph, checkpoint: str = CHECKPOINT) -> Painting:
        """Run a method's graph on a checkpoint; needs and raises as `paint`."""
        result = self.run(counted(graph, checkpoint))
        pictures = pictures_of(result)
        rows = int(result.outputs[COUNTED]["text"][0])
        return Painting(pictures, result.seconds / len(pictures), rows // len(pictures))

    def paint_graph(self, graph: Graph) -> tuple[list[np.ndarray], float]:
        """Run any graph that shows pictures: uint8 (h w 3), and seconds for each; raises as `paint`."""
        result = self.run(graph)
        pictures = pictures_of(result)
        return pictures, result.seconds / len(pictures)

    def run(self, graph: Graph) -> Result:
        """Run a graph; raises as `paint`."""
        return self.server.run(graph, timeout=TIMEOUT)

    def upload(self, picture: np.ndarray) -> str:
        """Put a picture into the server's input folder, once.

        Args:
            picture: uint8 (h w 3), or float or bool (h w) in 0..1, which becomes grey.

        Returns:
            Its name there.
        """
        if picture.ndim == 2:
            picture = np.repeat(np.round(255 * picture.astype(np.float32)).astype(np.uint8)[..., None], 3, -1)
        name = f"stage_{hashlib.sha256(picture.tobytes()).hexdigest()[:20]}.png"
        if name not in self._pictures:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                Image.fromarray(picture).save(path)
                self._pictures[name] = self.server.upload(path)
        return self._pictures[name]

    def masks(self, item: Item) -> tuple[str, ...]:
        """Names of the item's masks in the server's input folder; empty for an item of boxes."""
        if "masks" not in item.tags:
            return ()
        if item.seed not in self._uploaded:
            with tempfile.TemporaryDirectory() as folder:
                paths = write_masks(item, Path(folder))
                self._uploaded[item.seed] = tuple(self.server.upload(path) for path in paths)
        return self._uploaded[item.seed]


def pictures_of(result: Result, node: str = PICTURES) -> list[np.ndarray]:
    """The uint8 pictures (h w 3) that a node of a method's graph shows; of `PICTURES`, if nothing is said."""
    return [np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB")) for data in result.images[node]]


def write_masks(item: Item, folder: Path) -> list[Path]:
    """Write every region's mask, in painter's order, as a grey PNG of the canvas' size."""
    paths = []
    for number, mask in enumerate(item.layout.masks(CANVAS, CANVAS)):
        path = folder / f"stage_mask_{item.seed}_{number}.png"
        Image.fromarray(np.round(mask.numpy() * 255).astype(np.uint8)).convert("RGB").save(path)
        paths.append(path)
    return paths
