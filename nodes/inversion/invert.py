"""The node that inverts a picture to the noise that a sampler would paint it from."""

from torch import Tensor

from ...core.comfy.guider import Prompts
from ...core.comfy.progress import progress
from ...core.comfy.types import Conditioning, Model, Options, Vae
from ...core.inversion.comfy.invert import METHODS
from ...core.inversion.comfy.start import (
    Inversion,
    InvertedNoise,
    falling_levels,
    invert_to_start,
    reconstruct,
    start_runs,
)
from ...core.inversion.inversion import psnr_report, reconstruction_psnr
from ..api import io
from ..inputs import category_of, sampling_inputs

DEFAULT_STEPS, DEFAULT_SCHEDULER, DEFAULT_REFINEMENTS = 20, "normal", 1
NOT_MEASURED = "Not measured: measure is off."

METHOD_TIP = (
    "Both take the same step (DDIM's step is Euler's on the probability-flow ODE); they differ in where the network is "
    "asked for its direction. euler: at the state and noise level that the step departs from. ddim: at the same state, "
    "told the noise level of arrival, as diffusers and prompt-to-prompt invert. With refinements both end in the same."
)
OUTPUT_TIPS = {
    "latent": "The start as a LATENT: sample it with KSampler (Advanced), add_noise disabled, from step 0. Flow models "
    "need this node's model output with it.",
    "noise": "The start as NOISE for SamplerCustomAdvanced, with an empty latent of the same size.",
}


class StageInvert(io.ComfyNode):
    """Latent -> the start from which a sampler paints it again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageInvert",
            display_name="Invert to Noise",
            category=category_of(__name__),
            description="Follows a picture back to the noise that a deterministic sampler paints it from (DDIM "
            "inversion), and measures how well it comes back. Works with every model that ComfyUI samples.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="Model to sample with; its LoRAs count, other guidance does not."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="Prompt of the inversion: what the picture shows, or an empty text. Sample with the same "
                    "one to get the picture back.",
                ),
                io.Latent.Input(
                    "latent", tooltip="The picture, from VAE Encode. A larger batch is inverted together and slower."
                ),
                *sampling_inputs(
                    {
                        "steps": "Steps from the picture to noise. More follow the model more closely and take "
                        "longer; fewer leave more of the picture's layout in the noise. Give the sampler as many to "
                        "get it back.",
                        "scheduler": "Where the steps lie; the sampler's own scheduler brings the picture back best.",
                    },
                    steps=DEFAULT_STEPS,
                    scheduler=DEFAULT_SCHEDULER,
                ),
                io.Combo.Input("method", options=list(METHODS), default=METHODS[0], tooltip=METHOD_TIP),
                io.Int.Input(
                    "refinements",
                    default=DEFAULT_REFINEMENTS,
                    min=0,
                    max=20,
                    tooltip="Corrections of every step, one model call each. Higher comes back to the picture more "
                    "exactly and takes longer; 0 is the plain inversion; with euler 1 costs no more than 0.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Guidance during the inversion; needs a negative prompt unless it is 1. Higher says more "
                    "of the prompt, but the picture comes back worse and the noise is less like noise.",
                ),
                io.Int.Input(
                    "forward_noise_first_k",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="So many of the first steps are replaced by ordinary noising (arXiv 2410.23530). Higher "
                    "leaves less of plain areas in the noise, and the picture comes back less; 0 is a pure "
                    "inversion; as many as steps are ordinary image-to-image noise.",
                ),
                io.Boolean.Input(
                    "renormalise",
                    default=False,
                    tooltip="On: the noise gets the mean and deviation of pure noise, which mends casts and contrast "
                    "where it is to paint something else; the picture itself comes back worse. Off: as inverted.",
                ),
                io.Boolean.Input(
                    "measure",
                    default=True,
                    tooltip="On: sample the picture back and give the PSNR, which takes one more model call a step. "
                    "Off: faster, the PSNR is 0.",
                ),
                *sampling_inputs(
                    {
                        "seed": "Of the noise of forward_noise_first_k; without it the result does not depend on it.",
                    }
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Negative prompt of the inversion; only used where cfg is not 1."
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The sampler's own noise levels, in place of steps and scheduler; more of them are more "
                    "steps. They have to fall to 0: a part of a schedule, such as the low_sigmas of SplitSigmas, "
                    "inverts only up to its first level.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Measures the PSNR on pictures, against what the VAE makes of the latent. Not connected: "
                    "on latents, against their own range.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For the sampler: refuses samplers that add noise on their way from this start, and hands "
                    "the start to flow models. The model given works too, without the refusal.",
                ),
                io.Latent.Output(display_name="latent", tooltip=OUTPUT_TIPS["latent"]),
                io.Noise.Output(display_name="noise", tooltip=OUTPUT_TIPS["noise"]),
                io.Float.Output(
                    display_name="psnr",
                    tooltip="How well the picture comes back, in dB, mean over the batch: higher is better, 30 and "
                    "more is hard to see.",
                ),
                io.String.Output(display_name="report", tooltip="The same in words, for every picture."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        latent: Options,
        steps: int,
        scheduler: str,
        method: str,
        refinements: int,
        cfg: float,
        forward_noise_first_k: int,
        renormalise: bool,
        measure: bool,
        seed: int,
        negative: Conditioning | None = None,
        sigmas: Tensor | None = None,
        vae: Vae | None = None,
    ) -> io.NodeOutput:
        """Invert, and measure what comes back."""
        samples = latent["samples"]
        sigmas = falling_levels(model, scheduler, steps) if sigmas is None else sigmas
        runs = 2 if measure else 1
        prompts = Prompts(positive, negative, cfg)
        how = Inversion(method, refinements, forward_noise_first_k, renormalise, seed)
        start = invert_to_start(model, prompts, samples, sigmas, how, callback=progress(model, 0, runs))
        psnr, report = 0.0, NOT_MEASURED
        if measure:
            back = reconstruct(model, start, sigmas, prompts, progress(model, 1, runs))
            pictures = [back, samples] if vae is None else [vae.decode(back), vae.decode(samples)]
            found = reconstruction_psnr(*pictures, None if vae is None else 1.0)
            psnr, report = sum(found) / len(found), psnr_report(found, of_pictures=vae is not None)
        started = start_runs(model, start, refuse_noise=True)
        kept = {key: value for key, value in latent.items() if key != "noise_mask"}
        return io.NodeOutput(started, {**kept, "samples": start.latent()}, InvertedNoise(start, seed), psnr, report)
