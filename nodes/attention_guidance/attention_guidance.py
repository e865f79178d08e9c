"""Attention guidance and its report in the graph."""

from dataclasses import replace

import torch

from ...core.attention.sites import MIDDLE_AND_FIRST_UP, OF_TRANSFORMERS, SHARES
from ...core.attention_guidance.comfy.guide import GUIDANCE_LOG, guide_attention
from ...core.attention_guidance.energies import DEFAULT_ETA
from ...core.attention_guidance.log import NOT_GUIDED
from ...core.attention_guidance.published import CHEN, CHEN_END, ENERGIES
from ...core.attention_guidance.settings import Guidance
from ...core.attention_guidance.step import RULES, SIGMA_SQUARED
from ...core.comfy.progress import show_text
from ...core.comfy.types import Clip, Model, Options
from ...core.layout.layout import Layout as LayoutValue
from ..api import Layout, io, ui
from ..inputs import category_of, refusal

PUBLISHED, OWN = "as published", "own"  # settings
SITES = (MIDDLE_AND_FIRST_UP, *SHARES, *OF_TRANSFORMERS)
NEVER = -1.0  # threshold that no energy falls to


class StageAttentionGuidance(io.ComfyNode):
    """Model -> model whose sampling moves every phrase's attention into its region."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageAttentionGuidance",
            display_name="Attention Guidance",
            category=category_of(__name__),
            description="Moves each thing of a layout to its place by the gradient of the model's own attention (Chen "
            "et al., BoxDiff, Attention Refocusing, SALI). For U-Nets and transformers: SD, SDXL, SD 3, Flux, "
            "Qwen-Image, Z-Image, Wan and others, with every sampler.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A U-Net or a transformer, distilled ones among them; stored as bf16, fp16 or fp8. What "
                    "has no gradient, such as GGUF or int8, says so.",
                ),
                io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; finds the things in the prompt."),
                Layout.Input(
                    "layout",
                    tooltip="What is where. Its prompt must say every thing's name, and is the one that is guided; use "
                    "its prompt output in the sampler too. A region's strength multiplies its share, 0 leaves it out.",
                ),
                io.Combo.Input(
                    "energy",
                    options=list(ENERGIES),
                    default=CHEN,
                    tooltip="What is made small. chen: 1 - share of a thing's attention in its region, squared. sali: "
                    "the same plus eta times the strongest attention outside. boxdiff: inner, outer and corner terms, "
                    "one step per call in the first half. refocusing: strongest cells of cross-attention, and "
                    "self-attention that stays inside; the slowest.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Times the published factor of the energy (chen and sali 30, boxdiff 20 falling to 14, "
                    "refocusing 4 falling to 1). Higher moves things harder, too high breaks the picture; 0 switches "
                    "the node off; below 0 drives things out of their regions.",
                ),
                io.Combo.Input(
                    "settings",
                    options=[PUBLISHED, OWN],
                    default=PUBLISHED,
                    tooltip="as published: each energy runs with the settings that it was published with; iterations, "
                    "start_at, end_at, threshold, step_rule, sites and blocks are not used. own: all of these count "
                    "as they stand here; they begin as those of chen.",
                ),
                *own_settings(),
                io.Float.Input(
                    "eta",
                    default=DEFAULT_ETA,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    tooltip="Only for sali: weight of its regulariser. Higher suppresses a thing's attention outside "
                    "its region more and stops later, too high leaves it no attention at all; 0 is chen.",
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=False,
                    optional=True,
                    tooltip="On: needs less memory, but each step takes about a third longer. Switch it on where "
                    "memory runs out, above all with weights that do not fit on the GPU.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Prompt in which the things are looked for and which is guided; longer ones cost nothing "
                    "more. Empty: the layout's. Use it where the sampler's prompt says more than the layout's.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    optional=True,
                    tooltip="Only with own settings: numbers of a transformer's blocks, counted from 0, such as 8-12 "
                    "or 3, 5; then sites does not count. A higher last number makes each step slower, for it goes "
                    "through all blocks before. Empty: as sites says. Guidance Report says which were read.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler. Guidance Report tells what it did."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        energy: str | None,
        settings: str | None,
        start_at: float | None,
        end_at: float | None,
        sites: str | None,
        blocks: str | None = "",
    ) -> bool | str:
        """Refuse settings that do not go together before anything runs; connected ones are checked when it runs."""
        if settings != OWN or any(value is None for value in (energy, start_at, end_at, sites, blocks)):
            return True
        guidance = Guidance(energy, sites=blocks.strip() or sites, start_at=start_at, end_at=end_at)
        return refusal(guidance.chosen_energy) or True

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        layout: LayoutValue | list[LayoutValue],
        energy: str,
        strength: float,
        settings: str,
        iterations: int,
        start_at: float,
        end_at: float,
        threshold: float,
        step_rule: str,
        sites: str,
        eta: float = DEFAULT_ETA,
        checkpointing: bool = False,
        prompt: str = "",
        blocks: str = "",
    ) -> io.NodeOutput:
        """Prepare the model."""
        guidance = Guidance(energy=energy, strength=strength, eta=eta, checkpointing=checkpointing, prompt=prompt)
        if settings == OWN:
            guidance = replace(
                guidance,
                iterations=iterations,
                start_at=start_at,
                end_at=end_at,
                threshold=-torch.inf if threshold < 0 else threshold,
                step_rule=step_rule,
                sites=blocks.strip() or sites,
            )
        return io.NodeOutput(guide_attention(model, clip, layout, guidance))


def own_settings() -> list[io.Input]:
    """What a person may choose in place of what an energy was published with; the defaults are those of chen."""
    return [
        io.Int.Input(
            "iterations",
            default=5,
            min=1,
            max=100,
            tooltip="Only with own settings: steps before each model call at most. Higher follows the layout better "
            "and takes longer: each costs about half of a call with a negative prompt. As published chen and sali have "
            "5, boxdiff 1, refocusing 6 to 2. Distilled models of 4 to 8 steps have one or two guided steps: set 8.",
        ),
        io.Float.Input(
            "start_at",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Only with own settings: share of the run before which nothing is guided; must be below end_at. "
            "Higher leaves the rough arrangement to the noise; 0 guides from the first step, which is when things find "
            "their places.",
        ),
        io.Float.Input(
            "end_at",
            default=round(CHEN_END, 2),
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Only with own settings: share of the run after which nothing is guided. Higher holds things "
            "longer, takes longer and may cost quality. As published chen and sali have 10 of 51 steps, boxdiff half, "
            "refocusing 0.7; for models of 4 to 8 steps set 0.4.",
        ),
        io.Float.Input(
            "threshold",
            default=ENERGIES[CHEN].threshold,
            min=NEVER,
            max=10.0,
            step=0.01,
            tooltip="Only with own settings: energy, without any factor, at which steps stop: for the rest of the run "
            "with chen and sali, for this call with the others. Higher stops sooner: faster, less exact; below 0: "
            "never. As published chen and sali have 0.2, refocusing 0.1, boxdiff never. sali's energy has eta times "
            "its regulariser in it, which at eta 1 hardly ever falls to 0.2, so it guides until end_at.",
        ),
        io.Combo.Input(
            "step_rule",
            options=list(RULES),
            default=SIGMA_SQUARED,
            tooltip="Only with own settings: how the gradient becomes a step. sigma squared: chen's and sali's. plain: "
            "boxdiff's and refocusing's. normalised: always 5 % of the noise, however steep the energy; ours, for "
            "models with which the published steps are too small or too large, such as most transformers.",
        ),
        io.Combo.Input(
            "sites",
            options=list(SITES),
            default=MIDDLE_AND_FIRST_UP,
            tooltip="Only with own settings: where attention is read. As published middle and first up for chen and "
            "sali, a quarter of the latent for boxdiff and refocusing, which is 16 x 16 at 512 pixels. For pictures of "
            "half that size choose half of the latent. Finer maps place small things better; each step takes longer. "
            "Transformers have blocks of one size instead: found, which they read for all the places above, takes "
            "those that agree with each other; middle blocks: every second from a quarter to 55 % of the depth; all "
            "blocks: slower, less clear.",
        ),
    ]


class StageGuidanceReport(io.ComfyNode):
    """Latent -> what attention guidance did while it was sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageGuidanceReport",
            display_name="Guidance Report",
            category=category_of(__name__),
            description="Shows how the energy of Attention Guidance fell while a latent was sampled, as text and as a "
            "plot. Connect the sampler's latent.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Latent.Input(
                    "latent",
                    tooltip="Straight from the sampler whose model comes from Attention Guidance; by it the run is "
                    "found. A larger batch gives a line for each picture.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The energy over all evaluations, one plot per guidance."),
                io.String.Output(display_name="text", tooltip="A line per model call: energy before and after."),
            ],
        )

    @classmethod
    def execute(cls, latent: Options) -> io.NodeOutput:
        """Look the run up."""
        runs = GUIDANCE_LOG.find(latent["samples"]) or [NOT_GUIDED]
        text, plots = "\n\n".join(run.text() for run in runs), torch.stack([run.plot() for run in runs])
        show_text(cls.hidden.unique_id, text)
        shown = {**ui.PreviewImage(plots, cls=cls).as_dict(), "text": (text,)}
        return io.NodeOutput(plots, text, ui=shown)
