"""Where the words of a prompt look in a given picture, read with one evaluation of the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch
from einops import reduce
from torch import Tensor

from ...clip.comfy.columns import PromptColumns
from ...comfy.captions import embed_captions
from ...comfy.guider import Prompts, plain_guider
from ...comfy.pictures import encode_pictures
from ...comfy.types import Clip, Denoiser, Model, Options, Vae
from ..block_choice import pooled_map
from ..maps import among_words, average_maps, in_frames, phrase_map, smoothed
from ..recorder import AttentionRecorder
from ..sites import ALL_BLOCKS, BLOCK, QUARTER, Site
from .families import UNET, Family, family_of, known_family, network_of
from .found_blocks import chosen_sites, is_found, told_columns, word_maps
from .prompts import columns_in, length_in
from .recording import recording

INSTEAD = "Connect the model of one of those"


@dataclass(frozen=True)
class Reading:
    """How attention is read.

    Attributes:
        noise: how much noise the pictures get, as a share of a run in 0..1: 1 is where a run starts, 0 where it ends.
        sites: where to read, as in `sites.choose_sites`.
        seed: of the noise.
        smooth: whether every map is blurred by a 3 x 3 Gaussian of one cell; None: those of transformers are.
        which_word: read how much of what a position pays to the prompt's words it pays to each phrase, in 0..1, in
            place of how much of all its attention.
    """

    noise: float = 0.5
    sites: str = QUARTER
    seed: int = 0
    smooth: bool | None = None
    which_word: bool = False


@dataclass(frozen=True)
class PhraseMaps:
    """What was read.

    Attributes:
        maps: (b p h w) on the CPU, one map per picture and phrase, on the latent's grid; of a video (f p h w), one per
            frame of the latent.
        sites: that were averaged.
    """

    maps: Tensor
    sites: tuple[Site, ...]

    def for_pictures(self, count: int) -> Tensor:
        """Maps (count p h w) of so many pictures; a frame of a video's latent stands for several of its pictures."""
        if count == len(self.maps):
            return self.maps
        frames = torch.linspace(0, len(self.maps) - 1, count).round().long()
        return self.maps[frames]

    def text(self) -> str:
        """Say where they were read."""
        if self.sites[0].part != BLOCK:
            places = ", ".join(f"{site.part} {site.number} ({site.grid[1]} x {site.grid[0]})" for site in self.sites)
            return f"Attention maps were read in: {places}."
        numbers, site = ", ".join(str(each.number) for each in self.sites), self.sites[0]
        return (
            f"Attention maps were read in blocks {numbers} of 0 to {site.blocks - 1}, {site.grid[1]} x {site.grid[0]}."
        )


def attention_maps(
    model: Model, clip: Clip, latent: Tensor, prompt: str, phrases: Sequence[str], reading: Reading
) -> PhraseMaps:
    """Read the attention to phrases at noised latents: the mean over heads, tokens and sites.

    Args:
        model: a U-Net with cross-attention, or a transformer of a class that `families` knows; its LoRAs and patches
            count, guidance by Stagecraft's nodes does not.
        clip: text encoder of the same checkpoint.
        latent: (b c h w) as a VAE gives it, or (1 c f h w).
        prompt: what the model is told.
        phrases: to be found in the prompt.
        reading: how.

    Raises:
        ValueError: a model whose attention cannot be read, or sites that it does not have.
        LayoutError: a phrase that the prompt does not say.
    """
    family = family_of(model, "Attention maps", INSTEAD)
    embedded = embed_captions(clip, [prompt])
    columns = columns_in(family, clip, prompt, phrases, embedded, " or remove it from the phrases")
    finds = family is not UNET and is_found(reading.sites)
    asked = told_columns(columns) if finds or reading.which_word else columns.recorded
    recorders: dict[object, AttentionRecorder] = {}
    guider = plain_guider(model, Prompts(embedded))
    sampling = model.get_model_object("model_sampling")
    level = min(float(sampling.percent_to_sigma(1 - reading.noise)), float(sampling.sigma_max))
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
                ALL_BLOCKS if finds else reading.sites,
                tuple(x.shape[-2:]),
                [torch.tensor(asked)],
                lengths=[length_in(family, columns, entry)],
                keep=None if family is UNET else _mean_over_heads,
            )
        given["model_options"] = recording(given.get("model_options", {}), recorders, leave_early=not finds)
        denoise(x, sigmas[0] * x.new_ones(len(x)), **given)
        return torch.zeros_like(x)

    drawn = comfy.sample.prepare_noise(latent, reading.seed)
    guider.sample(drawn, latent, comfy.samplers.KSAMPLER(look), sigmas, disable_pbar=True, seed=reading.seed)
    # A text encoder with a schedule gives several prompts, of which one is due at this noise level.
    recorder = next((recorder for recorder in recorders.values() if recorder.maps), None)
    if recorder is None:
        raise ValueError(_nothing_read(family, reading.sites))
    read = recorder.maps
    if finds:
        told = word_maps([pooled_map(maps, site.grid) for site, maps in read.items()], columns)
        chosen = chosen_sites(recorder, [told], tuple(latent.shape[-2:]))
        read = {site: maps for site, maps in read.items() if site in chosen}
    is_smooth = family is not UNET if reading.smooth is None else reading.smooth
    return PhraseMaps(_averaged(read, asked, columns, latent, reading.which_word, is_smooth), tuple(read))


def encoded(model: Model, vae: Vae, pictures: Tensor) -> Tensor:
    """Pictures (n h w 3) as the model sees them: (n c h w), (n c 1 h w), or as the frames of one video (1 c f h w)."""
    family = known_family(network_of(model))
    is_video = family is not None and family.frames
    return vae.encode(pictures) if is_video else encode_pictures(vae, pictures)


def _mean_over_heads(_: Site, found: Tensor) -> Tensor:
    return reduce(found, "b heads n m -> b 1 n m", "mean").cpu()


def _averaged(
    read: dict[Site, Tensor],
    asked: Sequence[int],
    columns: PromptColumns,
    latent: Tensor,
    which_word: bool,
    is_smooth: bool,
) -> Tensor:
    """(b p h w) of maps (b heads (f h w) m)."""
    place = {column: i for i, column in enumerate(asked)}
    words = [place[column] for column in columns.words] if which_word else []
    per_phrase = []
    for each in columns.phrases:
        own = [place[column] for column in each]
        maps = []
        for site, found in read.items():
            found = found.cpu()
            if which_word:  # of its tokens' shares the sum, where it is the mean of their attention otherwise
                found = among_words(reduce(found, "b heads n m -> b 1 n m", "mean"), words) * len(own)
            flat = phrase_map(found, site.grid, own)
            frames = latent.shape[2] if latent.ndim == 5 else 1
            maps.append(in_frames(smoothed(flat) if is_smooth else flat, len(latent), frames))
        per_phrase.append(average_maps(maps, *latent.shape[-2:]))
    return torch.stack(per_phrase, dim=1)


def _nothing_read(family: Family, sites: str) -> str:
    if family is not UNET and not is_found(sites):
        return (
            f'No attention was read at "{sites}": the model has no such blocks, or another node has replaced its '
            'attention. Choose "found", or numbers of blocks that it has.'
        )
    return (
        "No attention to the prompt could be read in this model: another node has replaced its attention, or given it "
        "tokens that Stagecraft does not know. Remove that node."
    )
