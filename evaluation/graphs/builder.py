"""What all methods' graphs have in common: checkpoint, sampler settings, and everything after the prompts.

Graphs are in ComfyUI's API format. Every method paints with the same checkpoint, steps, CFG, sampler, scheduler, size
and noise, so that only the method differs. The pictures are the output of node `PICTURES`.
"""

import json
from collections.abc import Callable
from typing import TypeAlias

from ...core.layout.layout import Layout
from ...sticker_world.shipped import CHECKPOINT_FILE
from ...sticker_world.world.concepts import CANVAS
from .colours import NONE, Colours, coloured

CHECKPOINT = CHECKPOINT_FILE.name
STEPS = 20
CFG = 5.0
SAMPLER, SCHEDULER = "euler", "normal"
NEGATIVE = ""
PICTURES = "pictures"  # id of the node whose images are the result

Graph: TypeAlias = dict[str, dict]
Link: TypeAlias = list  # [node id, output index]
# (layout, seed of the noise, pictures in one batch, names of the regions' masks on the server) -> graph
Method: TypeAlias = Callable[..., Graph]


class GraphBuilder:
    """Collects nodes; `add` gives each an id and returns it."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, node_id: str | None = None, **inputs: object) -> str:
        """Add a node and return its id; a link is [id, output index]."""
        node_id = node_id or str(len(self.graph) + 1)
        self.graph[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def load(self) -> tuple[Link, Link, Link]:
        """MODEL, CLIP and VAE of the checkpoint."""
        loader = self.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        return [loader, 0], [loader, 1], [loader, 2]

    def encode(self, clip: Link, text: str) -> Link:
        """CONDITIONING of a prompt."""
        return [self.add("CLIPTextEncode", clip=clip, text=text), 0]

    def layout(self, layout: Layout, colours: Colours = NONE) -> Link:
        """STAGE_LAYOUT of a layout; it travels as JSON, masks included."""
        text = json.dumps(coloured(layout, colours).to_dict())
        return [self.add("StageLayout", layout=text, prompt="", background="", width=CANVAS, height=CANVAS), 0]

    def painted(
        self,
        model: Link,
        positive: Link,
        negative: Link,
        vae: Link,
        seed: int,
        pictures: int = 1,
        steps: int = STEPS,
        noise: Link | None = None,
    ) -> Link:
        """Add everything from the empty latent to IMAGE, which is returned.

        With noise of its own the run is the same but for the noise: what KSampler is made of, as single nodes.
        """
        latent = self.add("EmptyLatentImage", width=CANVAS, height=CANVAS, batch_size=pictures)
        if noise is None:
            sampler = self.add(
                "KSampler",
                model=model,
                positive=positive,
                negative=negative,
                latent_image=[latent, 0],
                seed=seed,
                steps=steps,
                cfg=CFG,
                sampler_name=SAMPLER,
                scheduler=SCHEDULER,
                denoise=1.0,
            )
        else:
            guider = self.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=CFG)
            sigmas = self.add("BasicScheduler", model=model, scheduler=SCHEDULER, steps=steps, denoise=1.0)
            euler = self.add("KSamplerSelect", sampler_name=SAMPLER)
            sampler = self.add(
                "SamplerCustomAdvanced",
                noise=noise,
                guider=[guider, 0],
                sampler=[euler, 0],
                sigmas=[sigmas, 0],
                latent_image=[latent, 0],
            )
        return [self.add("VAEDecode", samples=[sampler, 0], vae=vae), 0]

    def show(self, pictures: Link) -> Graph:
        """Make an IMAGE the result; returns the finished graph."""
        self.add("PreviewImage", PICTURES, images=pictures)
        return self.graph
