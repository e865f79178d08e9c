"""The backward guidance of Chen et al. (arXiv 2304.03373) with Euler steps, written plainly: one picture at a time.

Shares no code with the pack. The weights are cloned, every forward pass runs to its end, and the attention is taken
from the inputs of the softmax by plain forward hooks, which fit ComfyUI's U-Net as well as diffusers'.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MIDDLE, UP = ("middle_block.", "mid_block."), ("output_blocks.", "up_blocks.")  # ComfyUI's and diffusers' names
# (network, x (b c h w), timestep, text (b t c), more inputs by name) -> the network's raw output (b c h w)
Call = Callable[..., Tensor]


@dataclass
class SlowThing:
    """One phrase.

    Attributes:
        tokens: its positions in the prompt.
        boxes: x0, y0, x1, y1 in 0..1.
    """

    tokens: list[int]
    boxes: list[tuple[float, float, float, float]]


def of_comfyui(network: nn.Module, x: Tensor, timestep: Tensor, text: Tensor, **more: Tensor) -> Tensor:
    """Output of ComfyUI's U-Net; SDXL's needs y."""
    return network(x, timestep.expand(len(x)), context=text, transformer_options={}, **more)


def of_diffusers(network: nn.Module, x: Tensor, timestep: Tensor, text: Tensor, **more: dict[str, Tensor]) -> Tensor:
    """Output of diffusers' U-Net; SDXL's needs added_cond_kwargs."""
    return network(x, timestep, text, **more).sample


@dataclass
class SlowGuidance:
    """Everything that the loop reads; the defaults are those of the authors' code.

    Attributes:
        network: the U-Net; a copy of it is watched.
        things: what is guided, and where to.
        positive: the prompt's embedding (1 t c).
        negative: the negative prompt's (1 t c).
        sigmas: the run's noise levels, falling to 0.
        timesteps: what the network is told, one for each sigma but the last.
        kind: what the network predicts: "EPS", "V_PREDICTION" or "FLOW", whose states are (1 - sigma) x0 + sigma noise.
        call: how the network is called.
        cfg: classifier-free guidance.
        scale: of the loss, eta.
        iterations: at most, in a guided step.
        guided_steps: the first so many steps are guided.
        threshold: loss at which the guidance stops for good.
        more: what the network takes besides, by name.
        losses: of the last run: per step, per iteration.
        maps: of the last evaluation: whether the map is of the way up, and the map (b heads n t).
    """

    network: nn.Module
    things: list[SlowThing]
    positive: Tensor
    negative: Tensor
    sigmas: Tensor
    timesteps: Tensor
    kind: str = "EPS"
    call: Call = of_comfyui
    cfg: float = 7.5
    scale: float = 30.0
    iterations: int = 5
    guided_steps: int = 10
    threshold: float = 0.2
    more: dict = field(default_factory=dict)
    losses: list[list[float]] = field(default_factory=list)
    maps: list[tuple[bool, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.network).requires_grad_(False)
        for name, module in self.network.named_modules():
            if name.endswith("attn2") and name.startswith(MIDDLE + UP):
                self.watch(module, name.startswith(UP))

    def watch(self, module: nn.Module, is_up: bool) -> None:
        """Keep softmax(q k^T / sqrt(d)) of a cross-attention, (b heads n t)."""
        queries: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: tuple, keys: Tensor) -> None:
            q, k = (x.unflatten(-1, (module.heads, -1)).transpose(1, 2) for x in (queries.pop(), keys))
            self.maps.append((is_up, (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)))

        module.to_q.register_forward_hook(lambda _module, _inputs, output: queries.append(output))
        module.to_k.register_forward_hook(keep)

    def evaluate(self, x: Tensor, sigma: Tensor, timestep: Tensor, text: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw output of the network at the noisy x, and the maps of the middle and of the first up grid."""
        self.maps.clear()
        seen = x if self.kind == "FLOW" else x / (sigma**2 + 1) ** 0.5
        output = self.call(self.network, seen, timestep, text, **self.more)
        first = next(weights.shape[2] for is_up, weights in self.maps if is_up)
        return output, [weights for is_up, weights in self.maps if not is_up or weights.shape[2] == first]

    def loss(self, maps: list[Tensor], height: int, width: int) -> Tensor:
        """1 - share of every phrase's attention that lies in its boxes; squared, then the mean of everything."""
        total = 0.0
        for weights in maps:
            rows, columns = height, width
            while rows * columns > weights.shape[2]:
                rows, columns = -(-rows // 2), -(-columns // 2)
            for thing in self.things:
                mask = torch.zeros(rows, columns)
                for x0, y0, x1, y1 in thing.boxes:
                    mask[int(y0 * rows) : int(y1 * rows), int(x0 * columns) : int(x1 * columns)] = 1
                for token in thing.tokens:
                    seen = weights[0, :, :, token]
                    share = (seen * mask.flatten()).sum(-1) / seen.sum(-1)
                    total = total + ((1 - share) ** 2).mean() / len(thing.tokens)
        return total / (len(self.things) * len(maps))

    def iteration(self, x: Tensor, sigma: Tensor, timestep: Tensor) -> tuple[float, Tensor]:
        """The loss at x, and its gradient times the scale."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            _, maps = self.evaluate(x, sigma, timestep, self.positive)
            loss = self.loss(maps, *x.shape[-2:])
            return loss.item(), torch.autograd.grad(self.scale * loss, x)[0]

    def denoise(self, x: Tensor, sigma: Tensor, timestep: Tensor) -> Tensor:
        """Clean prediction with classifier-free guidance."""
        found = []
        for text in (self.positive, self.negative):
            output, _ = self.evaluate(x, sigma, timestep, text)
            if self.kind == "V_PREDICTION":
                found.append(x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5)
            else:
                found.append(x - sigma * output)
        return found[1] + self.cfg * (found[0] - found[1])

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Euler steps from the noisy x (1 c h w)."""
        self.losses = []
        loss = float("inf")  # outlives a step: once it is low enough, the guidance stays off
        for i, timestep in enumerate(self.timesteps):
            sigma, following = self.sigmas[i], self.sigmas[i + 1]
            self.losses.append([])
            while i < self.guided_steps and loss > self.threshold and len(self.losses[-1]) < self.iterations:
                loss, gradient = self.iteration(x, sigma, timestep)
                self.losses[-1].append(loss)
                x = x - sigma**2 * gradient
            x = x + (x - self.denoise(x, sigma, timestep)) / sigma * (following - sigma)
        return x


def slow_chen_loop(x: Tensor, **settings: object) -> Tensor:
    """Run the loop for every picture of x (b c h w) by itself; the settings are those of `SlowGuidance`."""
    loop = SlowGuidance(**settings)
    return torch.cat([loop(row[None]) for row in x])
