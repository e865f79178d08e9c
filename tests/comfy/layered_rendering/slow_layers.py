"""LRDiff's layered loop (Eq. 7 and 8 as reconstructed, Euler), written plainly: one layer, one prompt at a time.

Shares no code with the pack: masks are painted pixel by pixel, xi, the parametrisations and the fusion are written out,
and only the network itself is ComfyUI's.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class SlowLayer:
    """A caption's embedding, its region in whole pixels (None: the background), and delta (None: no guidance)."""

    text: torch.Tensor
    box: tuple[int, int, int, int] | None = None
    delta: torch.Tensor | None = None


@dataclass
class SlowRun:
    """Everything that the loop reads; layers stand in painter's order, the background first."""

    network: torch.nn.Module
    kind: str
    layers: list[SlowLayer]
    positive: torch.Tensor
    negative: torch.Tensor
    sigmas: torch.Tensor
    timesteps: torch.Tensor  # what the network is told, one for each sigma but the last
    last_layered_sigma: float
    cfg: float
    canvas: tuple[int, int]  # height, width in pixels
    control: object = None  # (x_in, timestep, text) -> control residuals
    options: dict = field(default_factory=dict)
    pag: float = 0.0
    without: bool = False  # the other reading of Eq. 7 and 8: the output is applied to x

    def denoise(self, x, seen, sigma, timestep, text, options):
        """Clean prediction at `seen`; a ControlNet reads the unperturbed x."""
        scale = 1.0 if self.kind == "FLOW" else (sigma**2 + 1) ** -0.5
        when = torch.full((len(x),), float(timestep))
        text = text.expand(len(x), -1, -1)
        control = self.control(x * scale, when, text) if self.control else None
        output = self.network(seen * scale, when, context=text, control=control, transformer_options=options)
        seen = x if self.without else seen
        if self.kind == "V_PREDICTION":
            return seen / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        return seen - sigma * output

    def guidance(self, layer, shape, sigma):
        """Delta_i = delta (2 M - 1) times the size of the state, cell by cell; 8 pixels are one cell."""
        xi = torch.zeros(shape)
        if layer.delta is None:
            return xi
        size = ((1 - sigma) ** 2 + sigma**2) ** 0.5 if self.kind == "FLOW" else (sigma**2 + 1) ** 0.5
        inside = self.painted([layer.box])[0]
        for row in range(shape[2]):
            for column in range(shape[3]):
                xi[:, :, row, column] = layer.delta * (2 * self.cell(inside, row, column) - 1)
        return xi * size

    def painted(self, boxes):
        """Which box is on top at every pixel, as one map of zeros and ones for each box (None: the whole canvas)."""
        height, width = self.canvas
        label = torch.full(self.canvas, -1)
        for i, box in enumerate(boxes):
            x0, y0, x1, y1 = box or (0, 0, width, height)
            label[y0:y1, x0:x1] = i
        return [(label == i).double() for i in range(len(boxes))]

    @staticmethod
    def cell(pixels, row, column):
        return pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].mean().item()

    def predict(self, x, sigma, timestep, which, options):
        """Fused prediction for the captions ("positive") or for the negative prompt in every layer."""
        if float(sigma) < self.last_layered_sigma:
            return self.denoise(x, x, sigma, timestep, getattr(self, which), options)
        fused = torch.zeros_like(x)
        for layer, pixels in zip(self.layers, self.painted([layer.box for layer in self.layers]), strict=True):
            delta = self.guidance(layer, x.shape, sigma)
            text = layer.text if which == "positive" else self.negative
            denoised = self.denoise(x, x + delta, sigma, timestep, text, options)
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    fused[:, :, row, column] += self.cell(pixels, row, column) * denoised[:, :, row, column]
        return fused

    @torch.no_grad()
    def __call__(self, x):
        """Euler steps from the noisy x."""
        for i, timestep in enumerate(self.timesteps):
            sigma, following = self.sigmas[i], self.sigmas[i + 1]
            positive = self.predict(x, sigma, timestep, "positive", self.options)
            negative = self.predict(x, sigma, timestep, "negative", self.options)
            denoised = negative + self.cfg * (positive - negative)
            if self.pag:
                replaced = {"patches_replace": {"attn1": {("middle", 0): lambda q, k, v, *_, **__: v}}}
                perturbed = self.predict(x, sigma, timestep, "positive", {**self.options, **replaced})
                denoised = denoised + self.pag * (positive - perturbed)
            x = x + (x - denoised) / sigma * (following - sigma)
        return x


def slow_apart(slow, x, again=None):
    """Each layer's Euler run to t0, one composite, and the rest; `again` changes a layer's state for good."""
    until = int((slow.sigmas[:-1] >= slow.last_layered_sigma).sum())

    def steps(x, first, last, layer):
        for i in range(first, last):
            sigma, following, when = slow.sigmas[i], slow.sigmas[i + 1], slow.timesteps[i]
            if layer is None:
                texts, seen = (slow.positive, slow.negative), x
            else:
                texts, seen = (layer.text, slow.negative), x + (0 if again else slow.guidance(layer, x.shape, sigma))
            positive, negative = (slow.denoise(x, seen, sigma, when, text, {}) for text in texts)
            denoised = negative + slow.cfg * (positive - negative)
            x = x + (x - denoised) / sigma * (following - sigma)
            if layer is not None and again:
                x = again(layer, x, i, following)
        return x

    joined = torch.zeros_like(x)
    for layer, pixels in zip(slow.layers, slow.painted([layer.box for layer in slow.layers]), strict=True):
        start = again(layer, x, -1, slow.sigmas[0]) if again else x
        state = steps(start, 0, until, layer)
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                joined[:, :, row, column] += slow.cell(pixels, row, column) * state[:, :, row, column]
    return steps(joined, until, len(slow.timesteps), None)
