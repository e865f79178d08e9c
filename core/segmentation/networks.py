"""What each kind of segmentation network says, as class logits on its own grid: a softmax over k gives probabilities.

Everything here is differentiable in the pixels.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

SMALLEST = 1e-6  # of a probability whose logarithm is taken


def semantic_logits(network: nn.Module, pixels: Tensor) -> Tensor:
    """Logits of a semantic model, such as SegFormer: (b 3 h w) -> (b k h' w')."""
    return network(pixel_values=pixels).logits


def query_logits(network: nn.Module, pixels: Tensor) -> Tensor:
    """Logits of a universal or instance model, such as Mask2Former, whose queries each hold one mask and one class.

    A pixel's score for a class is the sum over queries of class probability times mask probability, as the models'
    own semantic inference has it (Cheng et al. 2022, arXiv 2112.01527, section 3.2 after MaskFormer's equation 3).
    Models of things alone leave most pixels without a class: what is missing to 1 is the background's.

    Args:
        network: gives `class_queries_logits` (b q k+1), the last one "no object", and `masks_queries_logits`.
        pixels: (b 3 h w), normalised.

    Returns:
        (b k+1 h' w'), the background last.
    """
    found = network(pixel_values=pixels)
    classes = found.class_queries_logits.softmax(-1)[..., :-1]
    scores = einsum(classes, found.masks_queries_logits.sigmoid(), "b q k, b q h w -> b k h w")
    background = (1 - scores.sum(1, keepdim=True)).clamp(min=0)
    return (torch.cat([scores, background], 1) + SMALLEST).log()


def phrase_embeddings(network: nn.Module, tokens: dict[str, Tensor]) -> Tensor:
    """Text embeddings of CLIPSeg: tokens of n phrases -> (n d)."""
    text = network.clip.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return network.clip.text_projection(text.pooler_output)


def phrase_logits(network: nn.Module, pixels: Tensor, embeddings: Tensor) -> Tensor:
    """Logits of CLIPSeg (Lüddecke and Ecker 2022, arXiv 2112.10003), one per phrase; a sigmoid gives its mask.

    The model's own forward pass cuts the gradient to the picture and sees the picture once per phrase. Here CLIP sees
    it once with a gradient, and only the small decoder runs for every phrase.

    Args:
        network: transformers' CLIPSegForImageSegmentation.
        pixels: (b 3 h w), normalised.
        embeddings: (n d), see `phrase_embeddings`.

    Returns:
        (b n h w).
    """
    seen = network.clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    phrases = len(embeddings)
    # The first hidden state is that of the patches before any layer.
    activations = [repeat(seen[layer + 1], "b t c -> (b n) t c", n=phrases) for layer in network.extract_layers]
    logits = network.decoder(activations, repeat(embeddings, "n d -> (b n) d", b=len(pixels))).logits
    return rearrange(logits, "(b n) h w -> b n h w", n=phrases)


def with_background(logits: Tensor) -> Tensor:
    """Put a background before independent logits (b n h w): it is likeliest where every sigmoid is below one half."""
    return F.pad(logits, (0, 0, 0, 0, 1, 0))
