"""Painted backgrounds: smooth procedural pictures, every one different, all drawn with NumPy."""

import numpy as np

from .concepts import CANVAS

Colour = tuple[float, float, float]

_Y, _X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / CANVAS
_PIXEL = 1.0 / CANVAS


def paint_background(name: str, rng: np.random.Generator) -> np.ndarray:
    """Paint one background. Returns float32 (h w 3) in 0..1."""
    return np.clip(_PAINTERS[name](rng), 0.0, 1.0).astype(np.float32)


def _gradient(top: Colour, bottom: Colour, rng: np.random.Generator, jitter: float = 0.04) -> np.ndarray:
    """A vertical gradient whose two colours vary a little from scene to scene."""
    a = np.asarray(top, np.float32) + rng.uniform(-jitter, jitter, 3).astype(np.float32)
    b = np.asarray(bottom, np.float32) + rng.uniform(-jitter, jitter, 3).astype(np.float32)
    return a + (b - a) * _Y[..., None]


def _hills(rng: np.random.Generator, height: float, roughness: float) -> np.ndarray:
    """Coverage (h w) in 0..1 of the ground below a wavy horizon; `height` is its mean row, 0 at the top."""
    x = _X[0]
    line = np.full(CANVAS, height, np.float32)
    for frequency in (1.0, 2.3, 4.1):
        line += roughness / frequency * np.sin(2 * np.pi * (frequency * x + rng.uniform()))
    return np.clip((_Y - line) / _PIXEL + 0.5, 0.0, 1.0)


def _peaks(rng: np.random.Generator, height: float, drop: float) -> np.ndarray:
    """Coverage (h w) of a jagged mountain line whose highest points lie at `height`."""
    corners = np.linspace(-0.1, 1.1, 8) + rng.uniform(-0.05, 0.05, 8)
    rows = height + drop * np.where(np.arange(8) % 2 == rng.integers(2), 1.0, rng.uniform(0.0, 0.5, 8))
    line = np.interp(_X[0], np.sort(corners), rows)
    return np.clip((_Y - line) / _PIXEL + 0.5, 0.0, 1.0)


def _disc(x: float, y: float, radius: float, softness: float = 1.0) -> np.ndarray:
    """Coverage (h w) of a disc; `softness` is the width of its edge in pixels."""
    distance = np.hypot(_X - x, _Y - y)
    return np.clip((radius - distance) / (softness * _PIXEL) + 0.5, 0.0, 1.0)


def _over(picture: np.ndarray, coverage: np.ndarray, paint: np.ndarray | Colour) -> np.ndarray:
    return picture + (np.asarray(paint, np.float32) - picture) * coverage[..., None]


def _clouds(picture: np.ndarray, rng: np.random.Generator, lowest: float) -> np.ndarray:
    for _ in range(rng.integers(0, 4)):
        x, y, size = rng.uniform(0, 1), rng.uniform(0.04, lowest), rng.uniform(0.03, 0.06)
        for dx, scale in ((-1.3, 0.7), (0.0, 1.0), (1.2, 0.75)):
            picture = _over(picture, 0.85 * _disc(x + dx * size, y + size * (1 - scale), size * scale, 3), (1, 1, 1))
    return picture


def _meadow(rng: np.random.Generator) -> np.ndarray:
    sky = _clouds(_gradient((0.45, 0.74, 0.97), (0.86, 0.95, 1.0), rng), rng, 0.3)
    horizon = rng.uniform(0.4, 0.6)
    sky = _over(sky, _hills(rng, horizon, 0.05), _gradient((0.66, 0.86, 0.42), (0.50, 0.76, 0.33), rng))
    return _over(sky, _hills(rng, horizon + 0.15, 0.04), _gradient((0.52, 0.80, 0.32), (0.32, 0.62, 0.22), rng))


def _beach(rng: np.random.Generator) -> np.ndarray:
    sky = _clouds(_gradient((0.40, 0.75, 0.98), (0.90, 0.97, 1.0), rng), rng, 0.2)
    horizon = rng.uniform(0.3, 0.45)
    sky = _over(sky, _hills(rng, horizon, 0.0), _gradient((0.05, 0.60, 0.75), (0.25, 0.80, 0.85), rng))
    shore = horizon + rng.uniform(0.15, 0.25)
    sky = _over(sky, _hills(rng, shore - 0.02, 0.015), (0.95, 0.99, 1.0))
    return _over(sky, _hills(rng, shore, 0.015), _gradient((0.97, 0.90, 0.70), (0.92, 0.80, 0.55), rng))


def _snow(rng: np.random.Generator) -> np.ndarray:
    sky = _gradient((0.62, 0.72, 0.84), (0.86, 0.90, 0.95), rng)
    sky = _over(sky, _hills(rng, rng.uniform(0.4, 0.6), 0.05), _gradient((0.98, 0.99, 1.0), (0.86, 0.91, 0.97), rng))
    for _ in range(rng.integers(10, 25)):
        sky = _over(sky, _disc(rng.uniform(), rng.uniform(), rng.uniform(0.006, 0.011), 2), (1, 1, 1))
    return sky


def _night(rng: np.random.Generator) -> np.ndarray:
    sky = _gradient((0.04, 0.05, 0.18), (0.16, 0.17, 0.40), rng, 0.02)
    for _ in range(rng.integers(12, 28)):
        sky = _over(sky, _disc(rng.uniform(), rng.uniform(0, 0.7), rng.uniform(0.004, 0.009), 2), (1.0, 0.98, 0.85))
    sky = _over(sky, _disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.22), rng.uniform(0.04, 0.07)), (0.98, 0.95, 0.8))
    return _over(
        sky, _hills(rng, rng.uniform(0.7, 0.85), 0.03), _gradient((0.10, 0.16, 0.22), (0.05, 0.10, 0.16), rng, 0.02)
    )


def _sunset(rng: np.random.Generator) -> np.ndarray:
    sky = _gradient((0.52, 0.28, 0.58), (1.0, 0.70, 0.30), rng)
    horizon = rng.uniform(0.6, 0.75)
    sky = _over(sky, _disc(rng.uniform(0.15, 0.85), horizon - 0.02, rng.uniform(0.07, 0.12), 2), (1.0, 0.90, 0.55))
    return _over(sky, _hills(rng, horizon, 0.03), _gradient((0.42, 0.18, 0.36), (0.24, 0.10, 0.26), rng))


def _room(rng: np.random.Generator) -> np.ndarray:
    wall = _gradient((0.93, 0.86, 0.74), (0.88, 0.80, 0.68), rng, 0.05)
    x, y, w, h = rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.2), rng.uniform(0.22, 0.3), rng.uniform(0.22, 0.3)
    for margin, paint in ((0.02, (1, 1, 1)), (0.0, (0.62, 0.83, 0.96))):
        inside = np.minimum(np.minimum(_X - x, x + w - _X), np.minimum(_Y - y, y + h - _Y)) + margin
        wall = _over(wall, np.clip(inside / _PIXEL + 0.5, 0, 1), paint)
    floor = rng.uniform(0.65, 0.75)
    wall = _over(wall, _hills(rng, floor - 0.02, 0.0), (0.98, 0.96, 0.92))
    return _over(wall, _hills(rng, floor, 0.0), _gradient((0.72, 0.50, 0.32), (0.58, 0.38, 0.22), rng))


def _desert(rng: np.random.Generator) -> np.ndarray:
    sky = _gradient((0.98, 0.80, 0.52), (1.0, 0.93, 0.76), rng)
    sky = _over(
        sky, _disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.2), rng.uniform(0.05, 0.08), 2), (1.0, 0.97, 0.85)
    )
    horizon = rng.uniform(0.45, 0.6)
    sky = _over(sky, _hills(rng, horizon, 0.06), _gradient((0.93, 0.68, 0.40), (0.85, 0.55, 0.30), rng))
    return _over(sky, _hills(rng, horizon + 0.18, 0.05), _gradient((0.88, 0.58, 0.32), (0.75, 0.44, 0.22), rng))


def _mountains(rng: np.random.Generator) -> np.ndarray:
    sky = _clouds(_gradient((0.50, 0.70, 0.92), (0.88, 0.93, 0.98), rng), rng, 0.2)
    height = rng.uniform(0.2, 0.32)
    sky = _over(sky, _peaks(rng, height, 0.3), _gradient((0.80, 0.84, 0.92), (0.30, 0.36, 0.52), rng))
    return _over(
        sky, _hills(rng, rng.uniform(0.68, 0.78), 0.03), _gradient((0.30, 0.48, 0.36), (0.20, 0.38, 0.28), rng)
    )


def _lake(rng: np.random.Generator) -> np.ndarray:
    sky = _clouds(_gradient((0.60, 0.82, 0.98), (0.92, 0.97, 1.0), rng), rng, 0.25)
    horizon = rng.uniform(0.4, 0.5)
    sky = _over(sky, _hills(rng, horizon - 0.08, 0.04), _gradient((0.36, 0.60, 0.40), (0.28, 0.50, 0.34), rng))
    sky = _over(sky, _hills(rng, horizon, 0.0), _gradient((0.38, 0.66, 0.92), (0.10, 0.34, 0.70), rng))
    for _ in range(rng.integers(4, 9)):
        y, x = rng.uniform(horizon + 0.03, 0.98), rng.uniform(0, 1)
        ripple = np.clip(1.2 - np.abs(_Y - y) / (1.5 * _PIXEL), 0, 1) * np.clip(1.0 - np.abs(_X - x) / 0.12, 0, 1)
        sky = _over(sky, 0.6 * ripple, (0.85, 0.95, 1.0))
    return sky


def _forest(rng: np.random.Generator) -> np.ndarray:
    picture = _gradient((0.30, 0.48, 0.36), (0.14, 0.30, 0.22), rng)
    for _ in range(rng.integers(5, 9)):
        x, w, shade = rng.uniform(), rng.uniform(0.015, 0.035), rng.uniform(0.5, 1.0)
        trunk = np.clip((w - np.abs(_X - x)) / _PIXEL + 0.5, 0, 1) * (_Y < 0.78)
        picture = _over(picture, trunk, (0.24 * shade, 0.17 * shade, 0.12 * shade))
    return _over(
        picture, _hills(rng, rng.uniform(0.72, 0.8), 0.02), _gradient((0.16, 0.28, 0.14), (0.10, 0.18, 0.10), rng)
    )


def _blue(rng: np.random.Generator) -> np.ndarray:
    return _gradient((0.30, 0.52, 0.90), (0.30, 0.52, 0.90), rng, 0.06)


def _pink(rng: np.random.Generator) -> np.ndarray:
    return _gradient((0.98, 0.72, 0.82), (0.98, 0.72, 0.82), rng, 0.06)


_PAINTERS = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "night": _night,
    "sunset": _sunset,
    "room": _room,
    "desert": _desert,
    "mountains": _mountains,
    "lake": _lake,
    "forest": _forest,
    "blue": _blue,
    "pink": _pink,
}
