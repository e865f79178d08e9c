"""Models whose answers are known: codes that are colours, and a segmenter that tells colours apart."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from stagecraft.core.segmentation.segmenter import Segmenter
from torch import nn

SIZE, CELL = 32, 4
COLOURS = {"background": (0.5, 0.5, 0.5), "apple": (1.0, 0.0, 0.0), "frog": (0.0, 1.0, 0.0)}
LAYOUT = "an apple: 0 0.25 0.5 0.75\na frog: 0.5 0 1 0.5"


class Enlarging(nn.Module):
    """Codes are colours in -1..1; a cell is painted in its code's colour, blurred a little into its neighbours."""

    def forward(self, codes, spatial=None):
        return F.interpolate(codes, scale_factor=CELL, mode="bilinear")


class ColourCodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(block_out_channels=(1, 1, 1), norm_type="group")
        steps = torch.linspace(-1.2, 1.2, 6)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding.from_pretrained(torch.cartesian_prod(steps, steps, steps))
        self.quant_conv = self.post_quant_conv = nn.Identity()
        self.encoder, self.decoder = nn.AvgPool2d(CELL), Enlarging()


class ColourNetwork(nn.Module):
    """Each class's logit falls with the squared distance from its colour."""

    def __init__(self, colours, sharpness=20.0):
        super().__init__()
        self.colours = nn.Parameter(torch.tensor(colours), requires_grad=False)
        self.sharpness = sharpness

    def forward(self, pixel_values):
        cells = F.avg_pool2d(pixel_values, 2)
        distance = (cells[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        return SimpleNamespace(logits=-self.sharpness * distance)


def make_segmenter(names=tuple(COLOURS), **options):
    network = ColourNetwork([COLOURS[name] for name in names], **options)
    return Segmenter(network, names, (SIZE, SIZE), (0.0,) * 3, (1.0,) * 3)
