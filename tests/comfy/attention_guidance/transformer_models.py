"""The small transformers as ComfyUI's models: sampled as a flow, with all that they are given besides a prompt."""

import types

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import torch
from comfy.text_encoders.pixart_t5 import PixArtTokenizer
from stagecraft.tests.comfy.small_network import WIDTH, normal
from stagecraft.tests.comfy.transformers import NO_NETWORK, small


class Latents(comfy.latent_formats.LatentFormat):
    """Of as many channels and dimensions as a network's; nothing is scaled."""

    scale_factor = 1.0

    def __init__(self, shape):
        self.latent_channels, self.latent_dimensions = shape[0], len(shape) - 1


class SmallModel(comfy.model_base.BaseModel):
    """ComfyUI's model around a small network; what its own classes read from prompts and files is made up here."""

    def __init__(self, made, kind="FLOW"):
        super().__init__(NO_NETWORK, comfy.model_base.ModelType[kind])
        self.diffusion_model, self.made = made.network, made
        self.latent_format = Latents(made.shape)

    def extra_conds(self, **given):
        """The prompt, of any length, and the rest."""
        more = self.made.given(1)
        return {"c_crossattn": comfy.conds.CONDRegular(given["cross_attn"])} | {
            name: _cond(each) for name, each in more.items()
        }


def _cond(given):
    if isinstance(given, torch.Tensor):
        return comfy.conds.CONDRegular(given)
    if isinstance(given, list) and given and isinstance(given[0], torch.Tensor):
        return comfy.conds.CONDList(given)
    return comfy.conds.CONDConstant(given)


def model_of(made, kind="FLOW"):
    """A small transformer's ModelPatcher."""
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(SmallModel(made, kind), load_device=cpu, offload_device=cpu)


def small_model(name, kind="FLOW"):
    """One of `TRANSFORMERS`, or skip the test."""
    return model_of(small(name), kind)


class RandomText:
    """A text encoder with one of ComfyUI's tokenizers, here T5's without padding; every token has a random vector."""

    def __init__(self, width=WIDTH, tokenizer=PixArtTokenizer):
        self.tokenizer, self.width = tokenizer(), width
        self.cond_stage_model = types.SimpleNamespace(t5xxl=self)  # SD 3 may have any of its encoders

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def encode_from_tokens_scheduled(self, tokens):
        (chunks,) = tokens.values()
        vectors = [normal(self.width, seed=token) for chunk in chunks for token, *_ in chunk]
        return [[torch.stack(vectors)[None], {}]]
