"""One evaluation of a small network, in ComfyUI's own wrappers of it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.supported_models
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

TEXT, WIDTH = 11, 48  # tokens of the prompt, and the width of its embedding
OWN = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
NO_NETWORK = comfy.supported_models.SD15({"disable_unet_model_creation": True})


@dataclass(frozen=True)
class Small:
    """A network and what goes into it.

    Attributes:
        network: of ComfyUI's class.
        shape: of its latent, for one picture.
        given: what it is given besides, for a batch of so many.
        time: between 0 and 1, of a flow; others count to 1000.
        patch: cells of a token's sides.
        text: tokens of the prompt.
    """

    network: torch.nn.Module
    shape: tuple[int, ...]
    given: Callable[[int], dict[str, Any]] = field(default=lambda batch: {})
    time: float = 0.7
    patch: int = 2
    text: int = TEXT

    def state(self, batch: int = 1) -> torch.Tensor:
        """A noisy latent."""
        return normal(batch, *self.shape, seed=1)

    def prompt(self, batch: int = 1) -> torch.Tensor:
        """An embedding."""
        return normal(batch, self.text, WIDTH, seed=2)

    def run(self, x: torch.Tensor, text: torch.Tensor, options: dict[str, Any], **more: Any) -> torch.Tensor:
        """Evaluate it as ComfyUI does."""
        time = torch.full((len(x),), self.time)
        return evaluate(self.network, x, time, text, options, **self.given(len(x)), **more)


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Random numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def evaluate(network, x, t, text, options, control=None, **more):
    """A network in ComfyUI's own wrappers of an evaluation, without what a model does to its state."""

    def apply(x, t, _, text, control, options, **more):
        more |= {} if control is None else {"control": control}
        return network(x, t, context=text, transformer_options=options, **more)

    model = comfy.model_base.BaseModel(NO_NETWORK)
    model.diffusion_model = network
    wrappers = get_all_wrappers(WrappersMP.APPLY_MODEL, options)
    return WrapperExecutor.new_class_executor(apply, model, wrappers).execute(
        x, t, None, text, control, options, **more
    )


def class_of(module: str, name: str) -> type:
    """One of ComfyUI's networks.

    Raises:
        ModuleNotFoundError: this version has no such class.
    """
    found = importlib.import_module(f"comfy.ldm.{module}")
    if not hasattr(found, name):
        raise ModuleNotFoundError(f"no class {name} in comfy.ldm.{module}")
    return getattr(found, name)
