"""What the two looks are: glowing outlines on dark, and coarse blocks. Stickers wear them, backgrounds never do."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from ..world.scene import Scene

NEON, PIXELS = "neon", "pixels"
BLOCK = 16  # pixels of a block's side; the embedded autoencoder melts blocks of one latent cell, 8 pixels
LEVELS = 5  # of each colour channel in blocks
DARK = np.array([0.04, 0.03, 0.10], np.float32)
COLOURLESS = np.array([0.45, 0.95, 1.0], np.float32)  # of the lines of what has no colour of its own
CHROMA = 0.25  # from this difference of channels on, lines have the thing's own colour
LINE, RIM, GLOW = 3.5, 9.0, 6.0  # pixels, of lines, of the darkness around a thing, of the light around lines

# A picture float32 (h w 3) in 0..1 and a layer, uint8 (h w 4) with straight alpha -> the picture with the layer on it.
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _blurred(plane: np.ndarray, radius: float) -> np.ndarray:
    """Blur (h w) or (h w 3) in 0..1."""
    image = Image.fromarray(np.round(255 * np.clip(plane, 0, 1)).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius))).astype(np.float32) / 255


def _line_colours(rgb: np.ndarray) -> np.ndarray:
    """The brightest and purest colour of each pixel's hue."""
    low, high = rgb.min(-1, keepdims=True), rgb.max(-1, keepdims=True)
    pure = (rgb - low) / np.maximum(high - low, 1e-3)
    own = np.clip((high - low) / CHROMA, 0, 1)
    return own * (0.15 + 0.85 * pure) + (1 - own) * COLOURLESS


def draw_neon(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Put a thing on a picture as a dark shape with glowing outlines in its colours; see `Draw`."""
    alpha = layer[..., 3].astype(np.float32) / 255
    rgb = _blurred(layer[..., :3].astype(np.float32) / 255 * alpha[..., None], 3) / np.maximum(
        _blurred(alpha, 3)[..., None], 0.05
    )
    light = _blurred((layer[..., :3].astype(np.float32) / 255).mean(-1) * alpha, 1.5)
    rise, run = np.gradient(light)
    inner = np.clip(14 * np.hypot(rise, run) - 0.4, 0, 1)
    edge = _blurred(alpha, LINE)
    outer = np.clip(6 * edge * (1 - edge) - 0.5, 0, 1)
    line = np.maximum(outer, inner * (edge > 0.97))
    colour = _line_colours(np.clip(rgb, 0, 1))
    rim = np.clip(1.6 * _blurred(alpha, RIM), 0, 1)
    dark = np.maximum(alpha, 0.9 * rim)[..., None]
    picture = picture * (1 - dark) + DARK * dark
    picture = picture * (1 - line[..., None]) + colour * line[..., None]
    return 1 - (1 - picture) * (1 - 0.9 * _blurred(colour * line[..., None], GLOW))


def draw_pixels(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Put a thing on a picture as blocks of few colours; see `Draw`."""
    height, width = layer.shape[0] // BLOCK, layer.shape[1] // BLOCK
    cells = layer.astype(np.float32).reshape(height, BLOCK, width, BLOCK, 4) / 255
    alpha = cells[..., 3].mean((1, 3))
    colour = (cells[..., :3] * cells[..., 3:]).mean((1, 3)) / np.maximum(alpha, 1e-3)[..., None]
    colour = np.round(np.clip(colour, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)
    inside = alpha >= 0.5
    blocks = np.kron(colour, np.ones((BLOCK, BLOCK, 1), np.float32))
    there = np.kron(inside, np.ones((BLOCK, BLOCK), bool))[..., None]
    return np.where(there, blocks, picture).astype(np.float32)


def draw_plain(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Put a thing on a picture as it is; see `Draw`."""
    alpha = layer[..., 3:].astype(np.float32) / 255
    return picture * (1 - alpha) + layer[..., :3].astype(np.float32) / 255 * alpha


LOOKS: dict[str, Draw] = {NEON: draw_neon, PIXELS: draw_pixels}


def in_look(scene: Scene, draw: Draw) -> np.ndarray:
    """The scene's picture with all of its stickers in a look, uint8 (h w 3)."""
    picture = scene.backdrop.astype(np.float32) / 255
    for thing in scene.objects:
        picture = draw(picture, thing.layer)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
