"""A small VQGAN as taming-transformers has it: random weights by the published names, and the forward pass."""

import torch
import torch.nn.functional as F

WIDTHS, BLOCKS, CELLS, BOOK = (32, 64), 1, 4, (16, 3)  # of the small taming model; its lower level has attention


def taming_weights():
    """Random weights by the published names; the order is that of the forward pass."""
    shapes = {}

    def conv(name, inputs, outputs, side):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, side, side), (outputs,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name, inputs, outputs):
        norm(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", inputs, outputs, 3)
        norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    def middle(name, width):
        block(f"{name}.block_1", width, width)
        attention(f"{name}.attn_1", width)
        block(f"{name}.block_2", width, width)

    first, second = WIDTHS
    conv("encoder.conv_in", 3, first, 3)
    block("encoder.down.0.block.0", first, first)
    conv("encoder.down.0.downsample.conv", first, first, 3)
    block("encoder.down.1.block.0", first, second)
    attention("encoder.down.1.attn.0", second)
    middle("encoder.mid", second)
    norm("encoder.norm_out", second)
    conv("encoder.conv_out", second, CELLS, 3)
    conv("quant_conv", CELLS, BOOK[1], 1)
    shapes["quantize.embedding.weight"] = BOOK
    conv("post_quant_conv", BOOK[1], CELLS, 1)
    conv("decoder.conv_in", CELLS, second, 3)
    middle("decoder.mid", second)
    for index in range(BLOCKS + 1):
        block(f"decoder.up.1.block.{index}", second, second)
        attention(f"decoder.up.1.attn.{index}", second)
        block(f"decoder.up.0.block.{index}", second if index == 0 else first, first)
    conv("decoder.up.1.upsample.conv", second, second, 3)
    norm("decoder.norm_out", first)
    conv("decoder.conv_out", first, 3, 3)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: each / max(1, each[0].numel()) ** 0.5 for name, each in weights.items()}


class Taming:
    """The forward pass of taming-transformers' VQModel in plain functions."""

    def __init__(self, weights):
        self.weights = weights

    def conv(self, name, x, **options):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6)

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), padding=1)
        return (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.weights else x) + h

    def attention(self, name, x):
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        attended = (q.mT @ k / q.shape[1] ** 0.5).softmax(-1)
        return x + self.conv(f"{name}.proj_out", (v @ attended.mT).unflatten(2, x.shape[2:]))

    def middle(self, name, x):
        return self.block(f"{name}.block_2", self.attention(f"{name}.attn_1", self.block(f"{name}.block_1", x)))

    def encode(self, x):
        x = self.block("encoder.down.0.block.0", self.conv("encoder.conv_in", x, padding=1))
        x = self.conv("encoder.down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.attention("encoder.down.1.attn.0", self.block("encoder.down.1.block.0", x))
        x = F.silu(self.norm("encoder.norm_out", self.middle("encoder.mid", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x, padding=1))

    def decode(self, codes):
        x = self.middle("decoder.mid", self.conv("decoder.conv_in", self.conv("post_quant_conv", codes), padding=1))
        for level in (1, 0):
            for index in range(BLOCKS + 1):
                x = self.block(f"decoder.up.{level}.block.{index}", x)
                x = self.attention(f"decoder.up.{level}.attn.{index}", x) if level == 1 else x
            if level == 1:
                x = self.conv("decoder.up.1.upsample.conv", F.interpolate(x, scale_factor=2.0), padding=1)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)), padding=1)
