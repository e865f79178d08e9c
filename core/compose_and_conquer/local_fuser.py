"""CnC's local fuser: two depth maps, one in front of the other, become residuals for a frozen U-Net.

Compose and Conquer (Lee et al., ICLR 2024, arXiv 2401.09048), section 3.1. A ControlNet-like clone of the U-Net's
encoder, into which the two maps are injected at the first residual block of every level. The names of the weights are
those of the published file, without the prefix `local_adapter.`.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .config import FuserConfig
from .sd1_blocks import (
    Attend,
    Downsample,
    InjectedResBlock,
    Modulation,
    Operations,
    ResBlock,
    SpatialTransformer,
    fused_attention,
    timestep_embedding,
    zeroed,
)

PIXELS_PER_CELL = 8
STREAM_STRIDES = (1, 2, 1, 2)
UNET_PREFIX = "model.diffusion_model."
ENCODER_PARTS = ("time_embed.", "input_blocks.", "middle_block.")

Modulations = list[tuple[Modulation, Modulation]]  # of each level


class FeatureExtractor(nn.Module):
    """Two streams with weights of their own, joined late: foreground first, background second."""

    def __init__(self, config: FuserConfig, operations: Operations) -> None:
        super().__init__()
        self.fg_extractor = _stream(config.extractor_widths, operations)
        self.bg_extractor = _stream(config.extractor_widths, operations)
        widths = (2 * config.extractor_widths[-1], *config.stage_widths)
        self.extractors = nn.ModuleList(
            nn.Sequential(operations.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU())
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.zero_convs = nn.ModuleList(zeroed(operations.Conv2d(c, c, 3, padding=1)) for c in config.stage_widths)

    def forward(self, foreground: Tensor, background: Tensor) -> list[Tensor]:
        """(b 3 8h 8w) each -> per level (b s_i h_i w_i), h_i being h halved i times and rounded up."""
        h = torch.cat([self.fg_extractor(foreground), self.bg_extractor(background)], dim=1)
        features = []
        for stage, zero_conv in zip(self.extractors, self.zero_convs, strict=True):
            h = stage(h)
            features.append(zero_conv(h))
        return features


class LocalFuser(nn.Module):
    """Foreground and background depth -> residuals for the skip connections and the middle of a U-Net."""

    def __init__(
        self,
        config: FuserConfig,
        operations: Operations = nn,
        attention: Attend = fused_attention,
    ) -> None:
        """Make a fuser with fresh weights; with ordinary operations its residuals are all zero.

        Args:
            config: the shapes.
            operations: whose layers it is built from.
            attention: function `(q, k, v, heads, *, grid)` like `fused_attention`.
        """
        super().__init__()
        self.config, self.attention = config, attention
        width, emb = config.model_channels, 4 * config.model_channels
        self.time_embed = nn.Sequential(operations.Linear(width, emb), nn.SiLU(), operations.Linear(emb, emb))
        self.feature_extractor = FeatureExtractor(config, operations)
        self.input_blocks = nn.ModuleList([nn.ModuleList([operations.Conv2d(config.in_channels, width, 3, padding=1)])])
        widths = [width]
        for level, out_width in enumerate(config.widths):
            for number in range(config.num_res_blocks):
                if number == 0:
                    block = InjectedResBlock(width, emb, out_width, config.stage_widths[level], operations)
                else:
                    block = ResBlock(width, emb, out_width, operations)
                width = out_width
                layers = [block]
                if level in config.attention_levels:
                    layers.append(self._transformer(width, operations))
                self.input_blocks.append(nn.ModuleList(layers))
                widths.append(width)
            if level < len(config.widths) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(width, operations)]))
                widths.append(width)
        self.middle_block = nn.ModuleList(
            [
                ResBlock(width, emb, width, operations),
                self._transformer(width, operations),
                ResBlock(width, emb, width, operations),
            ]
        )
        self.zero_convs = nn.ModuleList(nn.Sequential(zeroed(operations.Conv2d(c, c, 1))) for c in widths)
        self.middle_block_out = nn.Sequential(zeroed(operations.Conv2d(width, width, 1)))

    def _transformer(self, width: int, operations: Operations) -> SpatialTransformer:
        return SpatialTransformer(width, self.config.context_dim, self.config.heads(width), operations)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        foreground_depth: Tensor,
        background_depth: Tensor,
        attend: Attend | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Residuals at one step.

        Args:
            x: (b c h w), the noisy latent as the U-Net sees it; any h, w.
            timesteps: (b), in 0..1000.
            context: (b n d), the same as the U-Net's: text, then image tokens.
            foreground_depth: (b 3 8h 8w), in 0..1, near is bright, zeros where nothing is known.
            background_depth: the same, what lies behind the foreground included.
            attend: function `(q, k, v, heads, *, grid)` of every cross-attention, as soft guidance needs one.

        Returns:
            One residual per input block of the U-Net, and the middle block's.

        Raises:
            ValueError: a depth map has another size than the latent.
        """
        _require_sizes(x, foreground_depth, background_depth)
        return self.residuals(x, timesteps, context, self.modulations(foreground_depth, background_depth), attend)

    def modulations(self, foreground_depth: Tensor, background_depth: Tensor) -> Modulations:
        """What depends on the maps alone, so that a run of many steps evaluates it once.

        Args:
            foreground_depth: as in `forward`; one row does for pictures that share their maps.
            background_depth: the same.

        Returns:
            For `residuals`.
        """
        features = self.feature_extractor(foreground_depth, background_depth)
        injected = [layer for block in self.input_blocks for layer in block if isinstance(layer, InjectedResBlock)]
        return [layer.modulations(feature) for layer, feature in zip(injected, features, strict=True)]

    def residuals(
        self, x: Tensor, timesteps: Tensor, context: Tensor, modulations: Modulations, attend: Attend | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """`forward` with what `modulations` has made of the maps, of as many rows or of one for all."""
        attend = self.attention if attend is None else attend
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))
        rest = iter(modulations)
        h, residuals = x, []
        for block, zero_conv in zip(self.input_blocks, self.zero_convs, strict=True):
            h = self._run(block, h, emb, context, rest, attend)
            residuals.append(zero_conv(h))
        h = self._run(self.middle_block, h, emb, context, rest, attend)
        return residuals, self.middle_block_out(h)

    def _run(
        self,
        block: nn.ModuleList,
        h: Tensor,
        emb: Tensor,
        context: Tensor,
        modulations: Iterator[tuple[Modulation, Modulation]],
        attend: Attend,
    ) -> Tensor:
        for layer in block:
            if isinstance(layer, InjectedResBlock):
                h = layer(h, emb, next(modulations))
            elif isinstance(layer, ResBlock):
                h = layer(h, emb)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context, self.attention, attend)
            else:
                h = layer(h)
        return h

    def load_encoder(self, unet: Mapping[str, Tensor]) -> None:
        """Start as a clone of the U-Net's encoder, as published before training.

        Every weight of the encoder and the middle is the U-Net's own, but for the normalisations that the injected
        blocks do not have; the extractors and denormalisations stay as they are.

        Args:
            unet: weights of the U-Net by their original (ldm) names, with or without `model.diffusion_model.`.

        Raises:
            ValueError: a weight is missing or has another shape.
        """
        unet = {name.removeprefix(UNET_PREFIX): value for name, value in unet.items()}
        cloned, wrong = {}, []
        for name, own in self.state_dict().items():
            if not name.startswith(ENCODER_PARTS) or ".norm_in." in name or ".norm_out." in name:
                continue
            if name not in unet or unet[name].shape != own.shape:
                wrong.append(name)
            else:
                cloned[name] = unet[name]
        if wrong:
            raise ValueError(
                f"{len(wrong)} weights of the U-Net's encoder are missing or have another shape, {wrong[0]} first; "
                "expected a U-Net of the fuser's own configuration, with its original (ldm) names."
            )
        self.load_state_dict(cloned, strict=False)


def _stream(widths: tuple[int, ...], operations: Operations) -> nn.Sequential:
    """Four convolutions with a SiLU after each, to a quarter of the sides."""
    layers: list[nn.Module] = []
    before = 3
    for width, stride in zip(widths, STREAM_STRIDES, strict=True):
        layers += [operations.Conv2d(before, width, 3, stride=stride, padding=1), nn.SiLU()]
        before = width
    return nn.Sequential(*layers)


def _require_sizes(x: Tensor, *depths: Tensor) -> None:
    expected = (len(x), 3, PIXELS_PER_CELL * x.shape[-2], PIXELS_PER_CELL * x.shape[-1])
    for depth in depths:
        if tuple(depth.shape) != expected:
            raise ValueError(
                f"A depth map is {tuple(depth.shape)}; for a latent of {tuple(x.shape)} it has to be {expected}: "
                "batch, 3 channels, and eight pixels per latent cell."
            )
