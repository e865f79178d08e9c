"""Start latents and attention guidance (SALI, arXiv 2401.16157), apart and together, by our own nodes.

`python stage.py evaluate sali` paints all of `COMPARED` on the same layouts and seeds in one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...core.attention_guidance.energies import DEFAULT_ETA
from ...core.layout.layout import Layout
from ..summary.compared import Compared
from .builder import NEGATIVE, SCHEDULER, STEPS, Graph, GraphBuilder, Link

ODE, SDE = "inversion (ODE)", "forward noise (SDE)"
# Inputs of Spatial Latent that no method changes, at the node's own defaults. It gets no segmenter, so that what judges
# takes no part.
REFERENCE = {
    "scheduler": SCHEDULER,
    "method": "euler",
    "refinements": 0,
    "inversion_prompt": "{prompt}",
    "forward_noise_first_k": 0,
    "object_prompt": "a photo of {phrase}",
    "draw_steps": 15,
    "draw_cfg": 5.0,
}


@dataclass(frozen=True)
class Sali:
    """A method: attention guidance, a start latent that knows the layout, or both.

    The settings of attention guidance were chosen on the tuning layouts. With Chen et al.'s own rule, sigma squared,
    box IoU stays near 0.3 at any strength from 0.2 to 2; the normalised one gives 0.5 and more. What is not named here
    has the nodes' own defaults.

    Attributes:
        energy: of attention guidance; "" leaves the node away.
        guidance_strength: of attention guidance.
        guidance_iterations: of attention guidance, per step.
        guidance_end_at: of attention guidance, share of the run.
        threshold: of attention guidance; below 0: never.
        step_rule: of attention guidance.
        sites: of attention guidance.
        eta: weight of SALI's regulariser, for its own energy alone.
        spatial: whether the run starts from a spatial latent.
        start: of the spatial latent, ODE or SDE.
        inversion_steps: S of the spatial latent.
        renormalise: of the spatial latent.
        background: of the spatial latent's reference.
    """

    energy: str = ""
    guidance_strength: float = 0.5
    guidance_iterations: int = 5
    guidance_end_at: float = 0.5
    threshold: float = -1.0
    step_rule: str = "normalised"
    sites: str = "half of the latent"
    eta: float = DEFAULT_ETA
    spatial: bool = False
    start: str = ODE
    inversion_steps: int = 20
    renormalise: bool = False
    background: str = "drawn"

    def __call__(
        self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = (), *, steps: int = STEPS
    ) -> Graph:
        """Build the graph; the layout brings its own masks."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        placed = builder.layout(layout)
        noise = self._noise(builder, model, clip, vae, placed, seed, pictures) if self.spatial else None
        if self.energy:
            guidance = builder.add(
                "StageAttentionGuidance",
                model=model,
                clip=clip,
                layout=placed,
                energy=self.energy,
                strength=self.guidance_strength,
                settings="own",
                iterations=self.guidance_iterations,
                start_at=0.0,
                end_at=self.guidance_end_at,
                threshold=self.threshold,
                step_rule=self.step_rule,
                sites=self.sites,
                eta=self.eta,
            )
            model = [guidance, 0]
        positive, negative = builder.encode(clip, layout.prompt), builder.encode(clip, NEGATIVE)
        return builder.show(builder.painted(model, positive, negative, vae, seed, pictures, steps, noise))

    def _noise(
        self, builder: GraphBuilder, model: Link, clip: Link, vae: Link, layout: Link, seed: int, pictures: int
    ) -> Link:
        start = builder.add(
            "StageSpatialLatent",
            model=model,
            clip=clip,
            vae=vae,
            layout=layout,
            seed=seed,
            batch_size=pictures,
            start=self.start,
            steps=self.inversion_steps,
            renormalise=self.renormalise,
            background=self.background,
            **REFERENCE,
        )
        return [start, 2]


PLAIN, GUIDED, BOTH = "plain", "chen", "sali"
GUIDANCE = Sali(energy="chen")
# The same guidance alone and from a spatial latent, so that what differs is the start.
METHODS: dict[str, Sali] = {
    GUIDED: GUIDANCE,
    "boxdiff": replace(GUIDANCE, energy="boxdiff"),  # better here than its own rule, as far as that was tried
    "refocusing": replace(GUIDANCE, energy="refocusing"),
    "spatial_latent": Sali(spatial=True),
    BOTH: replace(GUIDANCE, spatial=True),
    "sali_regularised": replace(GUIDANCE, spatial=True, energy="sali"),  # the paper's own loss
}
COMPARED = (PLAIN, *METHODS)

# What the paper claims of the start latent: relative gains over guidance alone, and how much CLIP may change.
TARGETS = {"box_iou": 0.15, "ap50": 0.25, "clip": -0.03}
NAMES = {"box_iou": "box IoU", "ap50": "AP@0.5", "clip": "CLIP"}


def gains(compared: Compared) -> list[dict]:
    """How much better spatial latent and guidance together are than guidance alone, on all sets at once.

    Args:
        compared: the run's methods.

    Returns:
        A measure for each of `TARGETS`: relative change, pictures of all sets weighing the same; none where a method
        is missing.
    """
    found = [(key, target, compared.gain(BOTH, GUIDED, key)) for key, target in TARGETS.items()]
    return [
        gain.measure(f"{NAMES[key]}: {BOTH} against {GUIDED}", "relative", target)
        for key, target, gain in found
        if gain.value is not None
    ]
