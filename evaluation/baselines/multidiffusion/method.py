"""MultiDiffusion, region mode with bootstrapping (Bar-Tal et al. 2023, arXiv 2302.08113), in any ComfyUI sampler.

One state is shared by all regions. Each region predicts a step with its own prompt; the steps are averaged with the
regions' masks as weights. ComfyUI does that with conditioning entries that have masks, the negative prompt's included.
In the first part of the run a region of the foreground sees the shared state inside its mask only, and a random
constant colour, noised to the same level, around it: this keeps things inside tight masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import Sampler
from comfy.sd import CLIP, VAE
from torch import Tensor

KEY = "evaluation_multidiffusion"
REGION = "evaluation_multidiffusion_region"  # on conditioning entries: 0 background, then the layout's regions
COLOURS = 8  # reconstructed: so many are encoded; every step and region draws one of them
# reconstructed: a colour is one latent vector, from the middle of a flat picture of this many pixels. All that the
# method needs of it is that it is constant and random.
FLAT_PICTURE = 64
COVERED = 0.5  # reconstructed: masks are binary; a latent cell belongs to a region that covers this share of it

Conditioning: TypeAlias = list[list[Any]]


class LayoutRegion(Protocol):
    """What this method reads of a region of the pack's."""

    phrase: str
    prompt: str


class Layout(Protocol):
    """What this method reads of a layout of the pack's; it runs without the pack's code."""

    background: str

    def sorted_regions(self) -> Sequence[LayoutRegion]:
        """The regions in painter's order."""

    def masks(self, height: int, width: int) -> Tensor:
        """Their shares of the cells (n h w), in painter's order."""


@dataclass(frozen=True)
class Regions:
    """What a run needs to know.

    Attributes:
        layout: of the pack; where the regions are.
        bootstrapped: share of the run.
        backgrounds: (k c), latents of constant colours.
        seed: of the order in which these are drawn.
    """

    layout: Layout
    bootstrapped: float
    backgrounds: Tensor
    seed: int

    def masks(self, height: int, width: int) -> Tensor:
        """Background and regions on the grid of the run: float32 (n+1 h w) of zeros and ones; regions may overlap.

        Raises:
            ValueError: a region that covers no cell.
        """
        regions = (self.layout.masks(height, width) >= COVERED).float()
        for region, mask in zip(self.layout.sorted_regions(), regions, strict=True):
            if not mask.any():
                raise ValueError(f'The region "{region.phrase}" covers no cell of the latent by half. Make it larger.')
        return torch.cat([(1 - regions.sum(0, keepdim=True)).clamp(min=0), regions])


def paint_regions(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    layout: Layout,
    negative: Conditioning,
    background_negative: Conditioning,
    bootstrapped: float,
    seed: int,
    colours: int = COLOURS,
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Prepare a model and its prompts so that any sampler paints a layout by MultiDiffusion.

    A region's step starts from what the region sees (the paper's F_i), which inside its mask is the shared state, and
    only that part is used. So averaging the predictions is averaging the steps, for every sampler whose step is linear
    in state and prediction, such as Euler.

    Args:
        model: to sample with.
        clip: encodes the prompts of the background and of the regions.
        vae: encodes colours.
        layout: the regions.
        negative: negative prompt of all regions.
        background_negative: negative prompt of the background, where another method has one of its own too.
        bootstrapped: share of the run in 0..1 that is bootstrapped; 0 switches that off.
        seed: of the random colours.
        colours: how many there are.

    Returns:
        Model, positive and negative for the sampler.
    """
    prompts = [layout.background, *(region.prompt or region.phrase for region in layout.sorted_regions())]
    positive = []
    for index, prompt in enumerate(prompts):
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        positive += [[text, {**options, REGION: index}] for text, options in encoded]
    negatives = [background_negative, *[negative] * (len(prompts) - 1)]
    negative = [[text, {**options, REGION: index}] for index, each in enumerate(negatives) for text, options in each]
    regions = Regions(layout, bootstrapped, constant_backgrounds(model, vae, colours, seed), seed)
    model = model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, _start_run(regions))
    return model, positive, negative


def constant_backgrounds(model: ModelPatcher, vae: VAE, colours: int, seed: int) -> Tensor:
    """Latents (k c) of random colours, each channel uniform in 0..1, in the model's own latent space."""
    rgb = torch.rand(colours, 3, generator=torch.Generator().manual_seed(seed))
    pictures = rgb[:, None, None].expand(-1, FLAT_PICTURE, FLAT_PICTURE, -1).contiguous()
    latents = model.get_model_object("latent_format").process_in(vae.encode(pictures))
    return latents[:, :, latents.shape[2] // 2, latents.shape[3] // 2].detach().float().cpu()


def _start_run(regions: Regions) -> Callable[..., Tensor]:
    """OUTER_SAMPLE wrapper: fits the masks to the run and starts the bootstrapping."""

    def start(
        executor: WrapperExecutor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        guider = executor.class_obj
        masks = regions.masks(*noise.shape[-2:])
        foreground = {}
        for entry in (entry for entries in guider.conds.values() for entry in entries):
            index = entry.pop(REGION, None)
            if index is not None:
                entry["mask"] = masks[index : index + 1]
            if index:
                foreground[entry["uuid"]] = index
        threshold = guider.model_patcher.get_model_object("model_sampling").percent_to_sigma(regions.bootstrapped)
        noisiest = sigmas[:-1][sigmas[:-1] > threshold]
        draw = torch.Generator().manual_seed(regions.seed)
        drawn = torch.randint(len(regions.backgrounds), (len(noisiest), len(masks)), generator=draw)
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL,
            KEY,
            _bootstrap(foreground, masks, noisiest, regions.backgrounds[drawn], noise),
            guider.model_options,
            is_model_options=True,
        )
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    return start


def _bootstrap(
    foreground: dict[UUID, int], masks: Tensor, sigmas: Tensor, backgrounds: Tensor, noise: Tensor
) -> Callable[..., Tensor]:
    """APPLY_MODEL wrapper that shows a region of the foreground nothing but a colour around its mask.

    Args:
        foreground: uuid of a conditioning entry -> its region.
        masks: (n h w).
        sigmas: (s), the noise levels that are bootstrapped, falling.
        backgrounds: (s n c), the colour for every level and region.
        noise: (b c h w), unit. reconstructed: that of the run itself, so that all of the first state is one picture of
            noise.
    """

    def bootstrap(  # ComfyUI's own signature
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> Tensor:
        uuids = (transformer_options or {})["uuids"]
        step = int((sigmas.to(t) > t[0]).sum())  # a sampler may evaluate between two levels
        if step < len(sigmas):
            rows = list(x.chunk(len(uuids)))
            mix = executor.class_obj.model_sampling.noise_scaling
            for i, (uuid, level) in enumerate(zip(uuids, t.chunk(len(uuids)), strict=True)):
                if region := foreground.get(uuid):
                    colour = backgrounds[step, region].to(x).view(1, -1, 1, 1)
                    around = mix(level.view(-1, 1, 1, 1), noise.to(x), colour)
                    rows[i] = torch.where(masks[region].to(x) > 0, rows[i], around)
            x = torch.cat(rows)
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    return bootstrap
