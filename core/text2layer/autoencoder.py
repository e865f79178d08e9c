"""CaT2I-AE: one latent for a foreground, a background and the mask between them.

Text2Layer (Zhang et al. 2023, arXiv 2307.09781), section 4.1: Stable Diffusion's autoencoder with the three stacked at
its input and its last layer replaced by prediction heads, one of them for the composed picture, as supervision only.
The convolutions around that are diffusers' own blocks. No code or weights of the paper were ever published.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.placing import keep_inside

LAYER_CHANNELS = {"foreground": 3, "background": 3, "mask": 1}  # reconstructed: the order in the stack
IMAGE = "image"
LOGVAR_RANGE = (-30.0, 20.0)  # as in Stable Diffusion's autoencoder
# reconstructed: latents start with little noise. At the usual start, a deviation of 1, it drowns them for a long time.
LOGVAR_START, LOGVAR_GAIN = -6.0, 0.1
RESIDUAL_END = ".conv2"  # diffusers' name of a residual block's last convolution

NO_DIFFUSERS = (
    "Text2Layer's autoencoder is built from blocks of the package diffusers, which ComfyUI's Python cannot import "
    "({reason}). Install it there with: pip install diffusers"
)


@dataclass(frozen=True)
class LayeredAutoencoderConfig:
    """Shapes of a `LayeredAutoencoder`; the defaults are Stable Diffusion's, as in the paper.

    Attributes:
        in_channels: of the stacked foreground, background and mask.
        latent_channels: of the latent.
        block_out_channels: widths from the finest resolution to the latent's.
        layers_per_block: residual blocks at every resolution of the encoder; the decoder has one more.
        norm_num_groups: groups of the normalisations.
        head_width: channels inside a prediction head.
        group_norm: whether encoder and decoder normalise, as published. Without it small ones learn colours sooner, and
            see a picture's parts as they see the whole.
        mid_block_add_attention: whether the middle attends to itself.
        auxiliary: whether there is a head for the composed picture.
        patch_size: side of the squares of pixels that are folded into channels before the encoder and unfolded behind
            the heads: 1 as published, 2 for a quarter of the work.
    """

    in_channels: int = 7
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    group_norm: bool = True
    head_width: int = 128  # reconstructed: the trunk's own width before the heads
    mid_block_add_attention: bool = True
    auxiliary: bool = True
    patch_size: int = 1

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self) | {"block_out_channels": list(self.block_out_channels)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "LayeredAutoencoderConfig":
        """The way back.

        Raises:
            ValueError: a name that is no field, or widths that are none.
        """
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ValueError(f"a layered autoencoder has no setting '{unknown[0]}'")
        values = dict(values)
        if "block_out_channels" in values:
            try:
                values["block_out_channels"] = tuple(int(width) for width in values["block_out_channels"])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"block_out_channels is {values['block_out_channels']!r}, no list of widths"
                ) from error
        return cls(**values)


@dataclass(frozen=True)
class LayeredOutput:
    """What a latent decodes to, all in 0..1.

    Attributes:
        foreground: straight colour (b 3 h w); it means nothing where the mask is 0.
        background: what lies behind, hidden parts included (b 3 h w).
        mask: share of the foreground in a pixel (b 1 h w).
        image: the auxiliary head's picture (b 3 h w), which only training needs; None without that head.
    """

    foreground: Tensor
    background: Tensor
    mask: Tensor
    image: Tensor | None = None

    def composite(self) -> Tensor:
        """I = m F + (1 - m) B (section 3), (b 3 h w)."""
        return compose(self.foreground, self.background, self.mask)


def compose(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
    """I = m F + (1 - m) B (section 3): (b c h w), (b c h w), (b 1 h w) -> (b c h w)."""
    return mask * foreground + (1 - mask) * background


class LayeredAutoencoder(nn.Module):
    """CaT2I-AE. Pictures and masks are in 0..1, latents as they come; a U-Net sees them scaled (`Text2LayerFile`)."""

    def __init__(self, config: LayeredAutoencoderConfig | None = None) -> None:
        """Build it with random weights.

        Raises:
            ImportError: diffusers is not installed.
        """
        super().__init__()
        try:
            from diffusers.models.autoencoders.vae import Decoder, Encoder
        except ImportError as error:
            raise ImportError(NO_DIFFUSERS.format(reason=error)) from error
        self.config = config = config or LayeredAutoencoderConfig()
        shared = {
            "block_out_channels": config.block_out_channels,
            "layers_per_block": config.layers_per_block,
            "norm_num_groups": config.norm_num_groups,
            "mid_block_add_attention": config.mid_block_add_attention,
        }
        levels, width, patch = len(config.block_out_channels), config.block_out_channels[0], config.patch_size**2
        self.encoder = Encoder(
            config.in_channels * patch, config.latent_channels, ("DownEncoderBlock2D",) * levels, **shared
        )
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config.latent_channels, width, ("UpDecoderBlock2D",) * levels, **shared)
        self.decoder.conv_out = nn.Identity()  # section 4.1: its last layer is removed
        if not config.group_norm:
            for trunk in (self.encoder, self.decoder):
                _drop_norms(trunk)
        with torch.no_grad():
            self.quant_conv.weight[config.latent_channels :] *= LOGVAR_GAIN
            self.quant_conv.bias[config.latent_channels :] = LOGVAR_START
        channels = LAYER_CHANNELS | ({IMAGE: 3} if config.auxiliary else {})
        self.heads = nn.ModuleDict(
            {name: _head(width, config.head_width, count * patch) for name, count in channels.items()}
        )

    def encode(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Give the latent of two layers, the mean of its posterior.

        Args:
            foreground: straight colour (b 3 h w); where the mask is at most 0.1 it is not looked at.
            background: (b 3 h w).
            mask: (b 1 h w), 1 where the foreground is opaque.

        Returns:
            (b 4 h/8 w/8).

        Raises:
            ValueError: sides that are no multiple of a latent cell's, or shapes that differ.
        """
        return self.posterior(foreground, background, mask)[0]

    def posterior(self, foreground: Tensor, background: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent's posterior, both (b 4 h/8 w/8); arguments as `encode`."""
        height, width = mask.shape[-2:]
        cell = self.config.downscale
        if foreground.shape[-2:] != mask.shape[-2:] or background.shape[-2:] != mask.shape[-2:]:
            sizes = ", ".join(f"{x.shape[-1]} x {x.shape[-2]}" for x in (foreground, background, mask))
            raise ValueError(f"Foreground, background and mask differ in size ({sizes}). Resize them to one size.")
        if height % cell or width % cell:
            raise ValueError(
                f"The layers have {width} x {height} pixels; the layered autoencoder takes multiples of {cell}. Resize "
                "or crop them."
            )
        # reconstructed: the mask in -1..1 like the colours, whose range is Stable Diffusion's
        stack = torch.cat([keep_inside(foreground, mask), background, mask], 1) * 2 - 1
        moments = self.quant_conv(self.encoder(F.pixel_unshuffle(stack, self.config.patch_size)))
        mean, logvar = moments.chunk(2, 1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, latent: Tensor) -> LayeredOutput:
        """(b 4 h w) -> layers of 8h x 8w pixels, clamped to 0..1."""
        output = self.predict(latent)
        pictures = {name: value.clamp(0, 1) for name, value in vars(output).items() if value is not None}
        return LayeredOutput(**pictures)

    def predict(self, latent: Tensor) -> LayeredOutput:
        """`decode` as training needs it: colours are not clamped, so that every error has a gradient."""
        features = self.decoder(self.post_quant_conv(latent))
        outputs = {name: F.pixel_shuffle(head(features), self.config.patch_size) for name, head in self.heads.items()}
        colours = {name: (value.float() + 1) / 2 for name, value in outputs.items() if name != "mask"}
        # reconstructed: a sigmoid keeps the mask in 0..1
        return LayeredOutput(mask=outputs["mask"].float().sigmoid(), **colours)


def _drop_norms(trunk: nn.Module) -> None:
    """Take group normalisation out, and start so that signals keep their size: residual blocks as the identity."""
    for part in list(trunk.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.Identity())
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear")
            nn.init.zeros_(part.bias)
    for name, part in trunk.named_modules():
        if name.endswith(RESIDUAL_END):
            nn.init.zeros_(part.weight)


def _head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Section 4.1: convolution, batch normalisation, ReLU, convolution.

    # reconstructed: kernels of 3 x 3, and the same form for the auxiliary picture.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 3, padding=1),
    )
