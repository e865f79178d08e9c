"""Settings of vision guidance in the graph."""

from torch import Tensor

from ...core.layered_rendering.vision_guidance import (
    AS_SEEN,
    EVERY_STEP,
    INJECTIONS,
    PUBLISHED_TOP_K,
    READINGS,
    SOURCES,
    VisionGuidance,
)
from ..api import VisionGuidance as GuidanceSocket
from ..api import io
from ..inputs import category_of


def read_vector(text: str) -> tuple[float, ...]:
    """Numbers of a text, divided by commas or spaces; empty for none.

    Raises:
        ValueError: something that is no finite number.
    """
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f'vector is "{text}"; expected numbers such as 0.5, -0.2, 0, 1. ({error})') from None
    if not all(abs(number) < float("inf") for number in numbers):
        raise ValueError(f'vector is "{text}"; expected finite numbers.')
    return numbers


class StageVisionGuidance(io.ComfyNode):
    """Where the vectors of vision guidance come from -> settings for Layered Rendering."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageVisionGuidance",
            display_name="Vision Guidance",
            category=category_of(__name__),
            description="Chooses the vector that is added inside a region and taken off outside it, for Layered "
            "Rendering (LRDiff, Eq. 5 and 6).",
            inputs=[
                io.Combo.Input(
                    "delta",
                    options=list(SOURCES),
                    default="dynamic",
                    tooltip="colour: the latent of each region's colour. dynamic: the mean noise where the region's "
                    "name is looked at most in the first step; needs no colour, but a U-Net. reference: the mean "
                    "latent of one picture for each region. vector: the numbers below, for all regions.",
                ),
                io.Int.Input(
                    "top_k",
                    default=PUBLISHED_TOP_K,
                    min=1,
                    max=65536,
                    tooltip="Only for dynamic: from how many latent cells the vector is averaged. Higher gives a "
                    "steadier average of more places; lower the sharpest spots alone, which depend more on the seed.",
                ),
                io.Float.Input(
                    "inside",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor of the vector inside a region. Higher calls the thing into its region more "
                    "strongly; 0 does not call it. The authors' script has 0.05, the paper's equation 1.",
                ),
                io.Float.Input(
                    "outside",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor of the vector outside a region, where it is taken off. Higher keeps the thing out "
                    "of the rest more strongly; 0 does not. The authors' script has 0.20, the paper's equation 1.",
                ),
                io.Combo.Input(
                    "inject",
                    options=list(INJECTIONS),
                    default=EVERY_STEP,
                    tooltip="every step: the layers see the vector as long as they are painted; strongest. first "
                    "step: in the first step, and in mode trajectories in the initial noise. as published: like the "
                    "authors' script, initial noise and a little after each of five steps; mode trajectories only.",
                ),
                io.String.Input(
                    "vector",
                    default="",
                    tooltip="Only for vector: one number for each latent channel of the model, such as 0.5, -0.2, 0, "
                    "1. Larger numbers push harder.",
                ),
                io.Combo.Input(
                    "reading",
                    options=list(READINGS),
                    default=AS_SEEN,
                    optional=True,
                    tooltip="For experts: how Eq. 7 and 8 are read, which no source shows legibly. as seen: a layer's "
                    "clean picture as the network saw it with the vector, our reading of Algorithm 1. without the "
                    "vector: the network's output applied to the latent without it, which makes the vector push the "
                    "wrong way at high noise.",
                ),
                io.Image.Input(
                    "references",
                    optional=True,
                    tooltip="Only for reference: one picture for each region, in painter's order, as one batch. "
                    "Brighter or more colourful pictures push harder.",
                ),
            ],
            outputs=[GuidanceSocket.Output(display_name="guidance", tooltip="For Layered Rendering.")],
        )

    @classmethod
    def validate_inputs(cls, delta: str | None, vector: str | None) -> bool | str:
        """Refuse a bad vector before anything runs."""
        if vector is None or delta is None:
            return True
        try:
            _chosen_vector(delta, vector)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        delta: str,
        top_k: int,
        inside: float,
        outside: float,
        inject: str,
        vector: str,
        reading: str = AS_SEEN,
        references: Tensor | None = None,
    ) -> io.NodeOutput:
        """Put the settings together."""
        numbers = _chosen_vector(delta, vector)
        pictures = references if delta == "reference" else None
        return io.NodeOutput(VisionGuidance(delta, top_k, inside, outside, inject, reading, numbers, pictures))


def _chosen_vector(delta: str, vector: str) -> tuple[float, ...]:
    """The numbers of a delta that is a vector, or none.

    Raises:
        ValueError: none where there should be some, or something else than numbers.
    """
    numbers = read_vector(vector) if delta == "vector" else ()
    if delta == "vector" and not numbers:
        raise ValueError('delta is "vector", but vector is empty. Write one number for each latent channel.')
    return numbers
