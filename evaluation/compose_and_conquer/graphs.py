"""Compose and Conquer (arXiv 2401.09048) by our own nodes, with every setting that its evaluation changes."""

from dataclasses import dataclass

import numpy as np

from ...core.layout.layout import Layout
from ...core.soft_guidance.soft_guidance import PUBLISHED
from ...sticker_world.shipped import CLIP_FOLDER, CNC_FILE
from ..graphs.builder import NEGATIVE, STEPS, Graph, GraphBuilder, Link
from ..painter import Painter


@dataclass(frozen=True)
class Asked:
    """What a picture is asked to be; None where nothing is said.

    Attributes:
        prompt: its text.
        seed: of the noise.
        foreground_depth: float (h w) in 0..1, near is bright.
        background_depth: the same, of the scene without its foreground.
        foreground_look: reference picture, uint8 (h w 3).
        background_look: the same of the background.
        region: of the foreground, bool (h w).
        layout: the same shapes with names, for `CnC.phrases`.
    """

    prompt: str
    seed: int
    foreground_depth: np.ndarray | None = None
    background_depth: np.ndarray | None = None
    foreground_look: np.ndarray | None = None
    background_look: np.ndarray | None = None
    region: np.ndarray | None = None
    layout: Layout | None = None


@dataclass(frozen=True)
class CnC:
    """A method: Compose and Conquer with these settings, named as the nodes' inputs.

    Attributes:
        file: of the fusers.
        foreground_depth_strength: multiplies the foreground's depth.
        background_depth_strength: the same of the background's.
        residual_scale: of what the local fuser adds to the U-Net.
        foreground_strength: of the foreground's tokens.
        background_strength: of the background's tokens.
        soft: whether tokens are kept to their regions; else all of them are open everywhere.
        phrases: strength with which the layout's names are kept to their shapes by Soft Guidance, which CnC itself
            does not have; 0 leaves them out.
    """

    file: str = CNC_FILE.name
    foreground_depth_strength: float = 1.0
    background_depth_strength: float = 1.0
    residual_scale: float = 1.0
    foreground_strength: float = 1.0
    background_strength: float = 1.0
    soft: bool = True
    phrases: float = 0.0

    def paint(self, painter: Painter, asked: Asked) -> tuple[np.ndarray, float, int]:
        """Paint one picture: uint8 (h w 3), seconds on the server, and rows that the network evaluated.

        Raises:
            PromptRejected: the server does not accept the graph.
            PromptFailed: a node failed.
        """
        (picture,), seconds, evaluations = painter.paint_counted(self.graph(painter, asked))
        return picture, seconds, evaluations

    def graph(self, painter: Painter, asked: Asked, steps: int = STEPS) -> Graph:
        """Build the graph; the painter's server gets the pictures that it loads."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        positive, negative = builder.encode(clip, asked.prompt), builder.encode(clip, NEGATIVE)
        if self.phrases and asked.layout is not None:
            guided = builder.add(
                "StageSoftGuidance",
                model=model,
                positive=positive,
                negative=negative,
                clip=clip,
                layout=builder.layout(asked.layout),
                strength=self.phrases,
                rule=PUBLISHED,
            )
            model, positive, negative = ([guided, output] for output in range(3))
        fusers: Link = [builder.add("StageCnCLoader", cnc_name=self.file), 0]
        composed = builder.add(
            "StageDepthCompose",
            model=model,
            positive=positive,
            negative=negative,
            cnc=fusers,
            foreground_depth_strength=self.foreground_depth_strength,
            background_depth_strength=self.background_depth_strength,
            residual_scale=self.residual_scale,
            start_at=0.0,
            end_at=1.0,
            **_pictures(
                builder, painter, foreground_depth=asked.foreground_depth, background_depth=asked.background_depth
            ),
            **self._looks(builder, painter, fusers, asked),
        )
        return builder.show(builder.painted([composed, 0], [composed, 1], [composed, 2], vae, asked.seed, 1, steps))

    def _looks(self, builder: GraphBuilder, painter: Painter, fusers: Link, asked: Asked) -> dict[str, Link]:
        looks = {"foreground": asked.foreground_look, "background": asked.background_look}
        if all(look is None for look in looks.values()):
            return {}
        clip_vision: Link = [builder.add("StageCLIPLoader", folder=CLIP_FOLDER.name), 1]
        exemplars = builder.add(
            "StageExemplars",
            cnc=fusers,
            clip_vision=clip_vision,
            foreground_strength=self.foreground_strength,
            background_strength=self.background_strength,
            **_pictures(builder, painter, **looks),
        )
        found: dict[str, Link] = {"exemplars": [exemplars, 0]}
        if self.soft and asked.region is not None:
            name = painter.upload(asked.region)
            found["mask"] = [builder.add("LoadImageMask", image=name, channel="red"), 0]
        return found


def _pictures(builder: GraphBuilder, painter: Painter, **pictures: np.ndarray | None) -> dict[str, Link]:
    """An input for each picture that there is, loaded from the server's own folder."""
    return {
        name: [builder.add("LoadImage", image=painter.upload(picture)), 0]
        for name, picture in pictures.items()
        if picture is not None
    }
