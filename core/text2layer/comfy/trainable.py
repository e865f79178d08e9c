"""A copy of a checkpoint's U-Net, as ComfyUI builds it, whose weights can be trained."""

from collections.abc import Mapping
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

FIRST = "input_blocks.0.0.weight"


class TrainableUNet(nn.Module):
    """SD 1's U-Net with as many input channels as asked for; its weights have their original (ldm) names.

    Its attention is PyTorch's own, because others have no backward pass on every machine.
    """

    def __init__(self, shapes: Mapping[str, Any], weights: Mapping[str, Tensor], inputs: int) -> None:
        """Build it.

        Args:
            shapes: ComfyUI's settings of the checkpoint's U-Net.
            weights: to start from; input channels that they lack start at zero.
            inputs: how many channels it takes.
        """
        super().__init__()
        settings = {**shapes, "in_channels": inputs, "dtype": torch.float32}
        self.network = UNetModel(**settings, device="cpu", operations=comfy.ops.disable_weight_init)
        weights = {name: weight.detach().float().cpu() for name, weight in weights.items()}
        first = weights[FIRST]
        missing = first.new_zeros(len(first), inputs - first.shape[1], *first.shape[2:])
        self.network.load_state_dict(weights | {FIRST: torch.cat([first, missing], 1)})
        self.network.requires_grad_(True)
        parts = (
            ("input", len(self.network.input_blocks)),
            ("middle", 1),
            ("output", len(self.network.output_blocks)),
        )
        self._blocks = [(part, number) for part, count in parts for number in range(count)]

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Predict: x (b c h w), time steps (b), context (b n d) -> (b 4 h w)."""

        def attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            return attention_pytorch(q, k, v, options["n_heads"])

        replaced = {kind: dict.fromkeys(self._blocks, attend) for kind in ("attn1", "attn2")}
        return self.network(x, t, context=context, transformer_options={"patches_replace": replaced})
