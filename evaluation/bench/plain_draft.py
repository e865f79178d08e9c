"""VQGAN+CLIP with a segmentation loss as one writes it down first: what `bench tcig` compares TCIG Draft with.

Each cut-out goes through CLIP by itself, augmentations are kornia's, one graph holds everything, diffusers quantises.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.clip.clip_guide import CLIPGuide
from ...core.tcig.cut_outs import NOISE, NUMBER
from ...core.tcig.draft import LEARNING_RATE
from ...core.tcig.prompts import WeightedPrompt, distances
from ...core.tcig.segmentation_loss import SegmentationTerm
from ...core.tcig.vqgan import VQGAN, clamp_with_gradient


def plain_draft(
    vqgan: VQGAN,
    start: Tensor,
    guide: CLIPGuide,
    prompts: Sequence[WeightedPrompt],
    terms: Sequence[SegmentationTerm],
    iterations: int,
    cut_outs: int = NUMBER,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Optimise a latent; weights multiply the losses.

    Args:
        vqgan: paints.
        start: (1 c h w).
        guide: reads the prompts.
        prompts: without stops.
        terms: what lies where.
        iterations: steps of Adam.
        cut_outs: how many CLIP sees in a step.
        augment: of the pooled copies (n 3 s s); None: kornia's, and noise.

    Returns:
        The latent (1 c h w).
    """
    augment = augment or canonical_augmentations()
    latent = start.clone().requires_grad_()
    adam = torch.optim.Adam([latent], lr=LEARNING_RATE)
    texts = guide.embed_texts([prompt.text for prompt in prompts])
    targets = [term.target(vqgan.decode(latent).detach()) for term in terms]
    low, high = vqgan.bounds()
    for _ in range(iterations):
        codes = vqgan.network.quantize(latent)[0]
        painted = vqgan.network.decoder(vqgan.network.post_quant_conv(codes))
        picture = clamp_with_gradient((painted + 1) / 2)
        pooled = (F.adaptive_avg_pool2d(picture, guide.size) + F.adaptive_max_pool2d(picture, guide.size)) / 2
        loss = sum(term.weight * term.loss(picture, target) for term, target in zip(terms, targets, strict=True))
        for cut_out in augment(pooled.repeat(cut_outs, 1, 1, 1)).split(1):
            seen = guide.embed_pictures(cut_out)
            for text, prompt in zip(texts, prompts, strict=True):
                loss = loss + prompt.weight * distances(seen, text).mean() / cut_outs
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            latent.clamp_(low, high)
    return latent.detach()


def canonical_augmentations() -> Callable[[Tensor], Tensor]:
    """The canonical loop's augmentations by kornia, then noise."""
    from kornia import augmentation

    steps = torch.nn.Sequential(
        augmentation.RandomAffine(degrees=15, translate=(0.1, 0.1), shear=5, p=0.7, padding_mode="zeros"),
        augmentation.RandomPerspective(0.7, p=0.7),
        augmentation.ColorJitter(0.1, 0.1, 0.1, 0.1, p=0.7),
        augmentation.RandomErasing((0.1, 0.4), (0.3, 1 / 0.3), same_on_batch=True, p=0.7),
    )

    def augment(copies: Tensor) -> Tensor:
        changed = steps(copies)
        return changed + NOISE * torch.rand(len(changed), 1, 1, 1) * torch.randn_like(changed)

    return augment
