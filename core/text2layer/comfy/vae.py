"""The layered autoencoder (CaT2I-AE) in ComfyUI, as ComfyUI itself handles a VAE."""

from collections.abc import Callable

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from einops import rearrange
from torch import Tensor

from ...drawing.pictures import PAINTED_NAN, check_finite, colours_of
from ...layers.layered_image import opaque_picture
from ..autoencoder import LayeredAutoencoder, LayeredOutput

# Bytes per pixel of a value's size that Stable Diffusion's autoencoder takes at its widths, as ComfyUI counts them.
ENCODING, DECODING = 1767, 2178
STOCK_WIDTH = 128
TILE, OVERLAP = 64, 16  # latent cells
PICTURE, MASK = 3, 1  # channels


class LayeredVae:
    """Layers to latents of unit variance and back; the weights come to the device when they are needed.

    Attributes:
        autoencoder: whose weights ComfyUI's memory management moves.
        patcher: ComfyUI's ModelPatcher around it.
        dtype: in which it computes.
        channels: of a latent.
        cell: pixels along one side of a latent cell.
    """

    def __init__(self, autoencoder: LayeredAutoencoder, scale: float, shift: float) -> None:
        """Take a network on the CPU, and what brings its latents to unit variance: (z - shift) * scale."""
        management = comfy.model_management
        self.device = management.vae_device()
        self.dtype = management.vae_dtype(self.device, [torch.bfloat16, torch.float32])
        self.autoencoder = autoencoder.eval().requires_grad_(False).to(self.dtype)
        self.scale, self.shift = scale, shift
        self.channels = autoencoder.config.latent_channels
        self.cell = autoencoder.config.downscale
        # Not CoreModelPatcher, whose paging of weights needs ComfyUI's own layers.
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.autoencoder, load_device=self.device, offload_device=management.vae_offload_device()
        )

    def encode(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Encode two layers.

        Args:
            foreground: straight colour, (b h w 3) in 0..1; where the mask is at most 0.1 it is not looked at.
            background: (b h w 3).
            mask: (b h w), 1 where the foreground is opaque.

        Returns:
            (b 4 h/8 w/8), on ComfyUI's device for what nodes hand on.

        Raises:
            ValueError: sizes that differ, or are no multiples of a latent cell's.
        """
        foreground, background = colours_of(foreground), opaque_picture(background, "background")
        parts = [rearrange(each, "b h w c -> b c h w") for each in (foreground, background.to(foreground.device))]
        mask = mask.to(foreground.device)
        sizes = {tuple(part.shape[-2:]) for part in (*parts, mask)}
        if len(sizes) > 1:
            found = ", ".join(f"{x.shape[-1]} x {x.shape[-2]}" for x in (*parts, mask))
            raise ValueError(
                f"Foreground, background and mask differ in size ({found} pixels). Scale or crop them to one size."
            )
        ((height, width),) = sizes
        if height % self.cell or width % self.cell or not height or not width:
            raise ValueError(
                f"The layers have {width} x {height} pixels; the layered VAE takes multiples of {self.cell}. Scale or "
                "crop them."
            )
        rows = max(len(part) for part in (*parts, mask))
        stack = torch.cat([_rows(part, rows) for part in (*parts, mask[:, None])], 1)

        def network(x: Tensor) -> Tensor:
            return self.autoencoder.encode(*x.to(self.device, self.dtype).split((PICTURE, PICTURE, MASK), 1)).float()

        latent = self._run(network, stack, self.channels, 1 / self.cell, ENCODING)
        return (latent - self.shift) * self.scale

    def encode_pictures(self, foreground: Tensor, background: Tensor, mask: Tensor | None) -> Tensor:
        """Encode what nodes bring: of any size, cut evenly to whole latent cells as VAE Encode does it.

        Args:
            foreground: (b h w 3), or (b h w 4) with its alpha.
            background: (b h w 3).
            mask: (b h w), 1 where the foreground is opaque; None takes its alpha, or all of it.

        Returns:
            (b 4 h/8 w/8); see `encode`, also for errors.
        """
        if mask is not None:
            mask = mask.reshape(-1, *mask.shape[-2:])  # some nodes give (h w) or (b 1 h w)
        else:
            mask = foreground[..., 3] if foreground.shape[-1] == 4 else torch.ones_like(foreground[..., 0])
        return self.encode(*(self._whole_cells(part) for part in (foreground, background)), self._whole_cells(mask))

    def _whole_cells(self, picture: Tensor) -> Tensor:
        for axis in (1, 2):
            rest = picture.shape[axis] % self.cell
            if picture.shape[axis] > self.cell:
                picture = picture.narrow(axis, rest // 2, picture.shape[axis] - rest)
        return picture

    def decode(self, latent: Tensor) -> LayeredOutput:
        """Decode latents.

        Args:
            latent: (b 4 h w) as a sampler of the same file's model gives it.

        Returns:
            The layers, channels in front, (b c 8h 8w) float32 in 0..1; without the auxiliary picture.

        Raises:
            ValueError: latents of another model.
        """
        if latent.ndim != 4 or latent.shape[1] != self.channels:
            raise ValueError(
                f"The latent has the shape {tuple(latent.shape)}; the layered VAE reads pictures of {self.channels} "
                "channels. Connect the sampler that runs the model of the same Load Text2Layer."
            )

        def network(x: Tensor) -> Tensor:
            found = self.autoencoder.decode(x.to(self.device, self.dtype))
            return torch.cat([found.foreground, found.background, found.mask], 1).float()

        stack = self._run(network, latent / self.scale + self.shift, 2 * PICTURE + MASK, self.cell, DECODING)
        check_finite(stack, "What the layered VAE decoded", PAINTED_NAN)
        foreground, background, mask = stack.split((PICTURE, PICTURE, MASK), 1)
        # ComfyUI's stacks of layers keep the transparency; from a mask that has been one they give it back to the bit.
        return LayeredOutput(foreground, background, 1 - (1 - mask))

    def _run(
        self, network: Callable[[Tensor], Tensor], x: Tensor, channels: int, times: float, bytes_per_pixel: int
    ) -> Tensor:
        """Run the network over a batch in as many parts as memory asks for, and in tiles if that is not enough."""
        management = comfy.model_management
        pixels = x.shape[-1] * x.shape[-2] * (self.cell**2 if times > 1 else 1)
        widths = self.autoencoder.config.block_out_channels[0] / STOCK_WIDTH / self.autoencoder.config.patch_size**2
        memory = bytes_per_pixel * pixels * widths * management.dtype_size(self.dtype)
        output = management.intermediate_device()
        try:
            management.load_models_gpu([self.patcher], memory_required=memory)
            at_once = max(1, int(management.get_free_memory(self.device) / memory))
            return torch.cat([network(part).to(output) for part in x.split(at_once)])
        except management.OOM_EXCEPTION:
            tile, overlap = (TILE, OVERLAP) if times > 1 else (TILE * self.cell, OVERLAP * self.cell)
        # Outside of `except`, whose error would keep the tensors that did not fit.
        management.soft_empty_cache()
        return comfy.utils.tiled_scale(
            x, network, tile, tile, overlap, upscale_amount=times, out_channels=channels, output_device=output
        )


def _rows(part: Tensor, rows: int) -> Tensor:
    """One for all pictures, or one for each."""
    if len(part) not in (1, rows):
        raise ValueError(f"There are {len(part)} of one layer and {rows} of another; give as many, or one for all.")
    return part.expand(rows, *part.shape[1:])
