"""The second stage of TCIG: a diffusion model paints a draft again."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ...core.comfy.progress import show_text
from ...core.comfy.sampling import Sampling
from ...core.comfy.types import Conditioning, Model, Vae
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.layout import layouts_of
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.comfy.refine import refine
from ...core.tcig.refinement import (
    LEAST_DENOISE,
    MOST_DENOISE,
    Denoising,
    refinement_report,
    refinement_text,
    report_json,
)
from ..api import Layout, Segmenters, io, ui
from ..inputs import category_of, refusal, sampling_inputs

MEASURED, BY_HAND = "mask fit", "by hand"


class StageTCIGRefine(io.ComfyNode):
    """Draft and layout -> finished picture, and how well the regions were kept."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageTCIGRefine",
            display_name="TCIG Refine",
            category=category_of(__name__),
            description="Noises a draft and paints it again with any checkpoint (TCIG, arXiv 2403.01212, stage two). "
            "How much it is noised follows from how well the draft's masks fit, and the fit is measured again after.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The draft, from TCIG Draft or any other source. More pictures in the batch are refined "
                    "one after the other.",
                ),
                Layout.Input("layout", tooltip="What the draft was made for; its names must be known to a segmenter."),
                Segmenters.Input(
                    "segmenter",
                    tooltip="Measures the fit before and after, from Load Segmenter. One that did not make the draft "
                    "is the stricter judge; with several, each judges what it knows.",
                ),
                io.Model.Input("model", tooltip="Model that paints; its LoRAs and guidance count."),
                io.Vae.Input("vae", tooltip="The model's VAE; encodes the draft and decodes the picture."),
                io.Conditioning.Input("positive", tooltip="Prompt of the picture; ControlNets and masks on it count."),
                io.Conditioning.Input("negative", tooltip="Negative prompt: what the picture must not show."),
                *sampling_inputs(
                    {
                        "seed": "Of the noise. Another number, higher or lower, gives another picture.",
                        "steps": "Steps of a whole run from pure noise; only the last of them are taken, denoise "
                        "times this. More are finer and take longer; fewer are coarser.",
                        "cfg": "Classifier-free guidance. Higher follows the prompt more closely, too high burns "
                        "colours; 1 leaves the negative prompt out and is twice as fast.",
                        "sampler_name": "How the steps are taken. Ancestral and SDE samplers add noise on their way "
                        "and keep less of the draft.",
                        "scheduler": "Where the steps lie between noise and picture; one with more of them at low "
                        "noise keeps more of the draft at the same denoise.",
                    }
                ),
                io.Combo.Input(
                    "denoise_from",
                    options=[MEASURED, BY_HAND],
                    default=MEASURED,
                    tooltip=f"'{MEASURED}': the worse the draft's masks fit, the more it is noised, between the next "
                    f"two values. '{BY_HAND}': denoise counts and they do not.",
                ),
                io.Float.Input(
                    "denoise_if_fits",
                    default=LEAST_DENOISE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run for a draft whose masks fit exactly. Higher paints better things but "
                    "lets them move; lower keeps them, and the draft's looks, in place.",
                ),
                io.Float.Input(
                    "denoise_if_not",
                    default=MOST_DENOISE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run for a draft in which nothing is where it should be. Higher lets the "
                    "model repair more; lower keeps more of the draft.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=f"Share of the run with '{BY_HAND}'. Higher changes more; 1 paints a new picture; 0 gives "
                    "the draft back as it is.",
                ),
                io.Float.Input(
                    "hold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much longer well-fitted regions are held than the rest (differential diffusion). "
                    "Higher keeps them closer to the draft while the others are repaired; 0 treats the whole picture "
                    "alike.",
                ),
                io.Float.Input(
                    "upscale",
                    default=1.0,
                    min=0.25,
                    max=8.0,
                    step=0.05,
                    tooltip="Enlarges the draft before it is noised. Higher gives more detail and takes much longer; "
                    "below 1 makes it smaller. The model must be able to paint pictures of that size.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The finished pictures."),
                io.Float.Output(
                    display_name="mask_iou",
                    tooltip="Mean mask IoU of the finished pictures' regions, 0 (nothing in place) to 1.",
                ),
                io.String.Output(
                    display_name="json",
                    tooltip="Every region's mask IoU in the draft and after, and the denoise of every picture.",
                ),
                io.Mask.Output(
                    display_name="changes",
                    tooltip="For what share of its run each pixel was free to change; white where it always was.",
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The drafts, with a noise mask that says for what share of the run each place may change, "
                    "for a sampler of your own behind Differential Diffusion.",
                ),
                io.Sigmas.Output(
                    display_name="sigmas",
                    tooltip="Noise levels of stage two, from the one that the measured fit asks for.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, denoise_from: str | None, denoise_if_fits: float | None, denoise_if_not: float | None
    ) -> bool | str:
        """Refuse shares the wrong way round before anything runs."""
        if denoise_from != MEASURED or None in (denoise_if_fits, denoise_if_not):
            return True
        return refusal(partial(Denoising, least=denoise_if_fits, most=denoise_if_not)) or True

    @classmethod
    def execute(
        cls,
        image: Tensor,
        layout: LayoutValue | Sequence[LayoutValue],
        segmenter: tuple[Segmenter, ...],
        model: Model,
        vae: Vae,
        positive: Conditioning,
        negative: Conditioning,
        denoise_from: str,
        denoise_if_fits: float,
        denoise_if_not: float,
        denoise: float,
        hold: float,
        upscale: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
    ) -> io.NodeOutput:
        """Refine every picture."""
        if denoise_from == MEASURED:
            denoising = Denoising(least=denoise_if_fits, most=denoise_if_not, hold=hold)
        else:
            denoising = Denoising(fixed=denoise, hold=hold)
        layouts, sampling = layouts_of(layout, len(image)), Sampling(seed, steps, cfg, sampler_name, scheduler)
        made = refine(model, vae, positive, negative, image, layouts, segmenter, denoising, sampling, upscale)
        report = refinement_report(layouts, made.before, made.after, made.shares)
        text = refinement_text(report)
        show_text(cls.hidden.unique_id, text)
        shown = {**ui.PreviewImage(made.images, cls=cls).as_dict(), "text": (text,)}
        again = made.again
        return io.NodeOutput(
            made.images,
            report["refined"],
            report_json(report),
            made.changes,
            {"samples": again.latent, "noise_mask": again.mask},
            again.sigmas,
            ui=shown,
        )
