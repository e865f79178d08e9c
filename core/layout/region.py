"""One thing on the canvas: what it is, where it is, and how strongly it is asked for."""

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import ImageColor
from torch import Tensor

from ..drawing.packed_greys import FLOATS, LEVELS, is_packed, pack_greys, unpack_greys
from .masks import FAINTEST, Box, box_coverage, is_empty, outer_box, resample_by_area
from .run_length import decode_runs, encode_runs, is_run_length

LARGEST_SIDE = 16384  # pixels, of a canvas or a mask; ComfyUI's own limit for a picture
MOST_REGIONS = 64  # every region can be a row of the model; more than this is a mistake, not a picture
MOST_MASK_PIXELS = 2**26  # of one mask in JSON, 8192 x 8192; a short text could else fill the memory
KEYS = ("phrase", "box", "mask", "prompt", "strength", "order", "colour", "reference", "lora")
STRONGEST_LORA = 100  # ComfyUI's own limit
EDITOR_KEYS = ("hidden", "editor")  # in JSON only: a hidden region takes no part, "editor" is the editor's own


class LayoutError(ValueError):
    """A layout that cannot be meant; the message says what was found, what was expected and what to change."""


class CanvasError(LayoutError):
    """A layout that another canvas might hold."""


@dataclass(frozen=True, eq=False)
class Region:
    """One thing on the canvas.

    Attributes:
        phrase: what it is called in the global prompt, such as "a dog".
        box: x0, y0, x1, y1 in 0..1 of the canvas, top left corner first.
        mask: float32 (h w) in 0..1, any resolution with the canvas' aspect ratio; wins over the box.
        prompt: longer prompt for its own layer; "" means the phrase.
        strength: multiplies a method's guidance for this region; 0 switches it off here.
        order: painter's order, larger is nearer; of equals the later in the list is nearer.
        colour: what vision guidance pulls towards, a CSS colour name or #rrggbb; "" means no vision guidance.
        reference: name of a picture of it, as the host knows its input pictures; "" means none.
        lora: what it alone wears, such as "neon:0.8, pixels:0.5", see `read_loras`; "" means nothing.

    Raises:
        LayoutError: a value that cannot be meant.
    """

    phrase: str
    box: Box | None = None
    mask: Tensor | None = None
    prompt: str = ""
    strength: float = 1.0
    order: int = 0
    colour: str = ""
    reference: str = ""
    lora: str = ""

    def __post_init__(self) -> None:
        name = f'The region "{_short(self.phrase)}"'
        for key in ("phrase", "prompt", "colour", "reference", "lora"):
            check_text(getattr(self, key), f"{name}: {key}")
        if not self.phrase.strip():
            raise LayoutError('A region has no phrase. Give it a name such as "a dog".')
        if self.box is None and self.mask is None:
            raise LayoutError(f"{name} has neither a box nor a mask. Write four numbers behind it or connect a mask.")
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box, name))
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask, name))
        if not math.isfinite(_as_float(self.strength)):
            raise LayoutError(f"{name} has strength {describe(self.strength)}; expected a finite number such as 1.0.")
        if type(self.order) is not int:
            raise LayoutError(f"{name} has order {describe(self.order)}; expected a whole number such as 0.")
        object.__setattr__(self, "strength", _as_float(self.strength))
        colour_to_rgb(self.colour, name)
        read_loras(self.lora, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        if any(getattr(self, key) != getattr(other, key) for key in KEYS if key != "mask"):
            return False
        if self.mask is None or other.mask is None:
            return self.mask is other.mask
        return torch.equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, key) for key in KEYS if key != "mask"))

    def mask_on(self, height: int, width: int) -> Tensor:
        """Its own mask on a grid, hidden parts included: float32 (height width), the share of every cell inside."""
        if self.mask is not None:
            return resample_by_area(self.mask, height, width)
        return box_coverage(self.box, height, width)

    def outer_box(self) -> Box:
        """Its box, or where it has a mask the box around what is inside of that: x0, y0, x1, y1 in 0..1."""
        return self.box if self.mask is None else outer_box(self.mask)

    def to_dict(self) -> dict[str, Any]:
        """Give the region as JSON values; what is left at its default is left out, except box, strength and order."""
        data: dict[str, Any] = {"phrase": self.phrase}
        if self.box is not None:
            data["box"] = list(self.box)
        if self.mask is not None:
            data["mask"] = _mask_to_dict(self.mask)
        data |= {"prompt": self.prompt, "strength": self.strength, "order": self.order}
        return data | {key: getattr(self, key) for key in ("colour", "reference", "lora") if getattr(self, key)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Region":
        """Build a region from JSON values.

        Raises:
            LayoutError: a key or a value that is not a region's.
        """
        if not isinstance(data, Mapping):
            raise LayoutError(f"A region is {describe(data)}; expected an object with the keys {', '.join(KEYS)}.")
        data = dict(data)
        if "color" in data and "colour" not in data:
            data["colour"] = data.pop("color")
        check_keys(data, (*KEYS, *EDITOR_KEYS), f'The region "{_short(data.get("phrase", ""))}"')
        for key in EDITOR_KEYS:
            data.pop(key, None)
        if "phrase" not in data:
            raise LayoutError('A region has no "phrase". Give it a name such as "a dog".')
        mask = data.get("mask")
        if mask is not None and not isinstance(mask, Tensor):
            data["mask"] = _mask_from_dict(mask, f'The region "{_short(data["phrase"])}"')
        return cls(**data)


def colour_to_rgb(colour: str, name: str = "The layout") -> tuple[float, float, float] | None:
    """Red, green and blue in 0..1 of a CSS colour name or #rrggbb, or None for "".

    Raises:
        LayoutError: no such colour.
    """
    if not colour:
        return None
    try:
        red, green, blue = ImageColor.getrgb(colour.strip())[:3]
    except ValueError:
        hint = nearest(colour.strip().lower(), ImageColor.colormap)
        raise LayoutError(f'{name} has the colour "{colour}"; expected "red", #rrggbb or the like.{hint}') from None
    return red / 255, green / 255, blue / 255


def colour_to_hex(colour: str) -> str:
    """A colour as #rrggbb, or "" for none."""
    rgb = colour_to_rgb(colour)
    return "" if rgb is None else "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def read_loras(text: str, name: str = "The layout") -> list[tuple[str, float]]:
    """Names and strengths of LoRAs out of "neon:0.8, pixels"; without a number it is 1, and with 0 none is worn.

    Raises:
        LayoutError: a LoRA without a name, or a strength that is none.
    """
    found = []
    for each in text.split(",") if text.strip() else []:
        file, strength = (part.strip() for part in (each if ":" in each else f"{each}:1").rsplit(":", 1))
        if not file:
            raise LayoutError(f'{name} has lora="{text}", where a LoRA has no name; expected lora=name:0.8.')
        try:
            value = float(strength)
        except ValueError:
            value = math.nan
        if not abs(value) <= STRONGEST_LORA:
            raise LayoutError(
                f'{name} has lora="{text}" with the strength "{strength}"; expected a number from -{STRONGEST_LORA} to '
                f"{STRONGEST_LORA} behind the colon, such as {file}:0.8."
            )
        found.append((file, value))
    return [(file, value) for file, value in found if value != 0]


def check_keys(data: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    """Refuse keys that nothing would read, naming the nearest one that exists."""
    for key in data:
        if key not in known:
            hint = nearest(str(key), known)
            raise LayoutError(f'{name} has the unknown key "{key}".{hint} Known: {", ".join(known)}.')


def check_text(value: object, name: str) -> None:
    """Refuse what is not text, and characters that no keyboard types and no tokenizer reads."""
    if not isinstance(value, str):
        raise LayoutError(f"{name} is {describe(value)}; expected text.")
    for character in set(value):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\r\t":
            raise LayoutError(f"{name} holds the control character U+{ord(character):04X}; remove it.")


def describe(value: object) -> str:
    """Name a JSON value for an error message, short whatever it is."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _short(name: object) -> str:
    """A name for an error message, as it is unless it is long."""
    text = str(name)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the most similar known word, or nothing."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f' Did you mean "{found[0]}"?' if found else ""


def _as_float(value: object) -> float:
    """The number as a float; NaN for what is no number, infinite for what is too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _checked_box(box: object, name: str) -> Box:
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise LayoutError(f"{name} has the box {describe(box)}; expected four numbers x0 y0 x1 y1 in 0..1.")
    x0, y0, x1, y1 = (_as_float(value) for value in box)
    shown = f"{name} has the box {describe(list(box))[1:-1]}"
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
        raise LayoutError(f"{shown}; expected four finite numbers x0 y0 x1 y1 in 0..1.")
    if not all(0 <= value <= 1 for value in (x0, y0, x1, y1)):
        raise LayoutError(f"{shown}, which leaves the canvas; expected shares of the canvas in 0..1, not pixels.")
    if x0 > x1 or y0 > y1:
        right = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        raise LayoutError(
            f"{shown} with reversed corners; expected the top left corner first: {' '.join(f'{v:g}' for v in right)}."
        )
    if x0 == x1 or y0 == y1:
        raise LayoutError(f"{shown}, which has no area; expected x0 < x1 and y0 < y1.")
    return x0, y0, x1, y1


def _checked_mask(mask: object, name: str) -> Tensor:
    if not isinstance(mask, Tensor) or mask.ndim != 2 or 0 in mask.shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else describe(mask)
        raise LayoutError(f"{name} has the mask {found}; expected a tensor of (height, width).")
    mask = mask.detach().float().cpu()
    if not torch.isfinite(mask).all():
        raise LayoutError(f"{name} has a mask with values that are not finite (NaN or infinite).")
    low, high = mask.aminmax()
    if low < 0 or high > 1:
        raise LayoutError(f"{name} has a mask with values from {low:g} to {high:g}; expected 0 outside to 1 inside.")
    if is_empty(mask):
        faint = f", nowhere above {high:.3g}; expected at least {FAINTEST} where the region is" if high else ""
        raise LayoutError(f"{name} has an empty mask{faint}. Paint where the region is, or give it a box instead.")
    return mask


def _mask_to_dict(mask: Tensor) -> dict[str, Any]:
    return encode_runs(mask) if torch.equal(mask, mask.round()) else pack_greys(mask)


def _mask_from_dict(data: object, name: str) -> Tensor:
    if is_run_length(data):
        try:
            return decode_runs(data, MOST_MASK_PIXELS)
        except ValueError as error:
            raise LayoutError(f"{name} has a mask that cannot be read: {error}.") from None
    if not is_packed(data):
        raise LayoutError(
            f"{name} has the mask {describe(data)}; expected an object with the keys size and counts (COCO's runs), "
            f"ellipse, polygon, or height, width and {LEVELS} or {FLOATS}."
        )
    try:
        return unpack_greys(data, LARGEST_SIDE, MOST_MASK_PIXELS)
    except ValueError as error:
        raise LayoutError(f"{name} has a mask {error}.") from None
