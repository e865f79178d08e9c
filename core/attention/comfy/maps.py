"""Where the words of a prompt look in a given picture, read with one evaluation of the model."""

from collections.abc import Sequence

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...clip.comfy.words import positions_of_phrases, token_count
from ...comfy.captions import embed_captions
from ...comfy.guider import Prompts, plain_guider
from ...comfy.types import Clip, Denoiser, Model, Options
from ..maps import average_maps, phrase_map
from ..recorder import AttentionRecorder
from .recording import has_cross_attention, recording


def attention_maps(
    model: Model,
    clip: Clip,
    latent: Tensor,
    prompt: str,
    phrases: Sequence[str],
    *,
    noise: float,
    sites: str,
    seed: int,
) -> Tensor:
    """Read the cross-attention of phrases at noised latents: the mean over heads, tokens and sites.

    Args:
        model: a U-Net with cross-attention; its LoRAs and patches count, guidance by Stagecraft's nodes does not.
        clip: text encoder of the same checkpoint.
        latent: (b c h w) as a VAE gives it.
        prompt: what the model is told.
        phrases: to be found in the prompt.
        noise: how much noise the latents get, as a share of a run in 0..1: 1 is where a run starts, 0 where it ends.
        sites: where to read, one of `sites.PLACES`.
        seed: of the noise.

    Returns:
        (b p h w) on the CPU, one map per picture and phrase, on the latent's grid.

    Raises:
        ValueError: a model without cross-attention.
        LayoutError: a phrase that the prompt does not say.
    """
    if not has_cross_attention(model):
        raise ValueError(
            "Attention maps are read from the cross-attention of a U-Net (SD 1.x, SD 2.x, SDXL); this model is "
            f"{type(model.get_model_object('diffusion_model')).__name__}, which mixes text and picture otherwise."
        )
    found = positions_of_phrases(clip, prompt, phrases, " or remove it from the phrases")
    positions = sorted({position for each in found for position in each})
    lengths, recorders = [token_count(clip, prompt)], {}
    guider = plain_guider(model, Prompts(embed_captions(clip, [prompt])))
    sampling = model.get_model_object("model_sampling")
    level = min(float(sampling.percent_to_sigma(1 - noise)), float(sampling.sigma_max))
    sigmas = torch.tensor([max(level, float(sampling.sigma_min))])

    def look(
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options | None = None,
        **_: object,
    ) -> Tensor:
        given = dict(extra_args or {})
        for entry in guider.conds["positive"]:
            recorders[entry["uuid"]] = AttentionRecorder(
                sites, tuple(x.shape[-2:]), [torch.tensor(positions)], lengths=lengths
            )
        given["model_options"] = recording(given.get("model_options", {}), recorders, leave_early=True)
        denoise(x, sigmas[0] * x.new_ones(len(x)), **given)
        return torch.zeros_like(x)

    drawn = comfy.sample.prepare_noise(latent, seed)
    guider.sample(drawn, latent, comfy.samplers.KSAMPLER(look), sigmas, disable_pbar=True, seed=seed)
    # A text encoder with a schedule gives several prompts, of which one is due at this noise level.
    read = next((recorder.maps for recorder in recorders.values() if recorder.maps), {})
    if not read:
        raise ValueError("No cross-attention could be read in this model: another node has replaced its attention.")
    per_phrase = []
    for each in found:
        columns = [positions.index(position) for position in each]
        maps = [phrase_map(maps.cpu(), site.grid, columns) for site, maps in read.items()]
        per_phrase.append(average_maps(maps, *latent.shape[-2:]))
    return torch.stack(per_phrase, dim=1)
