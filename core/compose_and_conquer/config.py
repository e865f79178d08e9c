"""Everything that the shapes of CnC's local fuser follow from, and which U-Net it belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .sd1_blocks import GROUPS

_BLOCK = re.compile(r"input_blocks\.(\d+)\.")
FAMILIES = {  # widths of the levels and of the text -> what people call the U-Net
    ((320, 640, 1280, 1280), 768): "SD 1.x",
    ((320, 640, 1280, 1280), 1024): "SD 2.x",
    ((320, 640, 1280), 2048): "SDXL",
    ((384, 768, 1536, 1536), 1280): "the SDXL refiner",
    ((64, 128, 192), 128): "Sticker World",
}


@dataclass(frozen=True)
class FuserConfig:
    """Shapes of a local fuser; the defaults are the published ones, for SD 1.5.

    Attributes:
        in_channels: of the latent.
        model_channels: width of the first level.
        channel_mult: width of each level as a multiple of it.
        num_res_blocks: residual blocks per level.
        attention_levels: which levels have transformers.
        num_heads: of every attention, where `num_head_channels` is 0.
        num_head_channels: width of a head; then wider levels have more heads.
        context_dim: width of the text's tokens.
        extractor_widths: channels of the four convolutions of each depth stream.
        stage_widths: channels of the feature map that is injected at each level.
    """

    in_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    num_heads: int = 8
    num_head_channels: int = 0
    context_dim: int = 768
    extractor_widths: tuple[int, int, int, int] = (32, 64, 64, 64)
    stage_widths: tuple[int, ...] = (192, 256, 384, 512)

    def __post_init__(self) -> None:
        """Refuse shapes that no network can have."""
        if len(self.stage_widths) != len(self.channel_mult) or len(self.extractor_widths) != 4:
            raise ValueError(
                f"{len(self.stage_widths)} stage widths and {len(self.extractor_widths)} extractor widths; expected "
                f"one stage per level ({len(self.channel_mult)}) and 4 extractor widths."
            )
        deepest = len(self.channel_mult) - 1  # the middle has a transformer too
        for level, width in enumerate(self.widths):
            heads = self.heads(width) if level in {*self.attention_levels, deepest} else 1
            if width % GROUPS or heads < 1 or width % heads:
                raise ValueError(f"{width} channels cannot be split into {GROUPS} groups and {heads} heads.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.model_channels * multiple for multiple in self.channel_mult)

    def heads(self, width: int) -> int:
        """Heads of an attention of this width."""
        return width // self.num_head_channels if self.num_head_channels else self.num_heads

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor], num_head_channels: int = 0) -> "FuserConfig":
        """Read the shapes off a fuser's weights; the split into heads leaves no trace in them.

        Args:
            weights: by the published names, without `local_adapter.`.
            num_head_channels: width of a head; 0 for the published 8 heads.

        Raises:
            ValueError: weights are missing or misshapen that every local fuser has, or its levels differ in depth.
        """
        try:
            return cls._read(weights, num_head_channels)
        except KeyError as error:
            raise ValueError(f"No weights of a CnC local fuser: {error.args[0]} is missing.") from error
        except (IndexError, ZeroDivisionError) as error:
            raise ValueError("No weights of a CnC local fuser: some have too few dimensions, or none.") from error

    @classmethod
    def _read(cls, weights: Mapping[str, Tensor], num_head_channels: int) -> "FuserConfig":
        first = weights["input_blocks.0.0.weight"].shape
        count = 1 + max(int(found[1]) for name in weights if (found := _BLOCK.match(name)))
        widths: list[int] = []
        blocks: list[int] = []
        attention: list[int] = []
        is_new_level = True
        for number in range(1, count):
            if f"input_blocks.{number}.0.op.weight" in weights:
                is_new_level = True
                continue
            if is_new_level:
                widths.append(weights[f"input_blocks.{number}.0.in_layers.2.weight"].shape[0])
                blocks.append(0)
                is_new_level = False
            blocks[-1] += 1
            if f"input_blocks.{number}.1.proj_in.weight" in weights and len(widths) - 1 not in attention:
                attention.append(len(widths) - 1)
        if len(set(blocks)) != 1:
            raise ValueError(f"The levels have {blocks} residual blocks; expected the same number in each.")
        extractor = "feature_extractor.{}.weight"
        return cls(
            in_channels=first[1],
            model_channels=first[0],
            channel_mult=tuple(width // first[0] for width in widths),
            num_res_blocks=blocks[0],
            attention_levels=tuple(attention),
            num_head_channels=num_head_channels,
            context_dim=weights["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
            extractor_widths=tuple(
                weights[extractor.format(f"fg_extractor.{index}")].shape[0] for index in (0, 2, 4, 6)
            ),
            stage_widths=tuple(
                weights[extractor.format(f"extractors.{level}.0")].shape[0] for level in range(len(widths))
            ),
        )

    def matches(self, unet: Mapping[str, Any]) -> str | None:
        """Whether the fuser's residuals fit a U-Net.

        Args:
            unet: a U-Net's configuration by ldm's names, as ComfyUI's `model_config.unet_config`.

        Returns:
            A sentence that says why not and what to load, or None.
        """
        own = _family(self.widths, self.context_dim)
        ask = f"Load a checkpoint of {own}, or fusers that were trained for the connected model."
        if "model_channels" not in unet or "context_dim" not in unet:
            kind = unet.get("image_model") or "without a U-Net's levels"
            return f"These CnC fusers belong to {own}; the connected model ({kind}) is no such U-Net. {ask}"
        widths = tuple(unet["model_channels"] * multiple for multiple in unet["channel_mult"])
        blocks = unet.get("num_res_blocks", self.num_res_blocks)
        blocks = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if widths != self.widths or unet["context_dim"] != self.context_dim:
            other = _family(widths, unet["context_dim"])
            return f"These CnC fusers belong to {own}; the connected model is {other}. {ask}"
        if blocks != [self.num_res_blocks] * len(widths):
            return (
                f"These CnC fusers belong to {own} with {self.num_res_blocks} residual blocks per level; the connected "
                f"model has {blocks}. {ask}"
            )
        return self._heads_match(unet)

    def _heads_match(self, unet: Mapping[str, Any]) -> str | None:
        """A fuser is a clone of its U-Net's encoder, so that it has the same heads; a file need not say which."""
        per_head = max(unet.get("num_head_channels") or 0, 0)
        heads = max(unet.get("num_heads") or 0, 0)
        width = self.widths[-1]
        expected = width // per_head if per_head else heads
        if not expected or expected == self.heads(width):
            return None
        return (
            f"The connected model splits {width} channels into {expected} heads, the CnC file into "
            f"{self.heads(width)}. Load the checkpoint that the fusers were trained for, or write the width of a head "
            'into the metadata of the CnC file as "num_head_channels".'
        )


def _family(widths: tuple[int, ...], context_dim: int) -> str:
    known = FAMILIES.get((tuple(widths), context_dim))
    shape = f"widths {', '.join(map(str, widths))}, text {context_dim}"
    return f"{known} ({shape})" if known else f"a U-Net of {shape}"
