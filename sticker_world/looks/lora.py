"""A LoRA of the embedded U-Net (Hu et al. 2021, arXiv 2106.09685) in the names that ComfyUI reads.

Of convolutions too (as LyCORIS has it): the U-Net's finest cells, where outlines and blocks are drawn, have no
attention.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..checkpoint.export import ldm_names

RANK = 5  # the file stays below 300 kB
# What is adapted, by the ends of diffusers' names; queries and keys say where things are, which no look changes.
ADAPTED = ("conv_in", "conv_out", "conv2", "to_v", "to_out.0")


class Adapter(nn.Module):
    """What is added to one layer's output: up(down(x)), and nothing before training."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        if isinstance(layer, nn.Conv2d):
            window = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
            self.down = nn.Conv2d(layer.in_channels, rank, bias=False, **window)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer sees -> what is added to what it gives."""
        return self.up(self.down(x))


class Adapters(nn.Module):
    """All adapters of a U-Net, which is left as it is but for the hooks that add them."""

    def __init__(self, unet: nn.Module, rank: int = RANK) -> None:
        super().__init__()
        self.names = [name for name, _ in unet.named_modules() if name.endswith(ADAPTED)]
        layers = dict(unet.named_modules())
        self.parts = nn.ModuleList(Adapter(layers[name], rank) for name in self.names)
        for name, part in zip(self.names, self.parts, strict=True):
            layers[name].register_forward_hook(_adding(part))

    def file_names(self) -> dict[str, str]:
        """The names of ComfyUI's LoRA files by the names of `state_dict`."""
        named = ldm_names(f"{name}.weight" for name in self.names)
        found = {}
        for index, name in enumerate(self.names):
            layer = named[f"{name}.weight"].removesuffix(".weight")
            for half in ("up", "down"):
                found[f"parts.{index}.{half}.weight"] = f"diffusion_model.{layer}.lora_{half}.weight"
        return found

    def in_file(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of `state_dict` in half precision by the names of a file."""
        return {new: weights[old].half().contiguous() for old, new in self.file_names().items()}


def _adding(part: Adapter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + part(inputs[0])

    return add
