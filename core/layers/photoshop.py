"""Photoshop documents (PSD), written and read by psd-tools (MIT licence), which is loaded only here."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .stored import LayerFileError, StoredLayer, require_normal, require_opaque_group, require_size

if TYPE_CHECKING:
    from psd_tools.api.layers import GroupMixin, Layer

WITH_PIXELS = ("pixel", "type", "smartobject", "shape")  # psd-tools' kinds of layers that hold a picture of themselves
NORMAL, THROUGH = "normal", "pass_through"  # the second is a group's usual blend mode


def _psd_tools() -> ModuleType:
    try:
        import psd_tools
    except ImportError as error:
        raise LayerFileError(
            "Photoshop documents need psd-tools, which is not installed. Run `pip install psd-tools` with ComfyUI's "
            "Python, or use OpenRaster (.ora), which needs nothing."
        ) from error
    return psd_tools


def require_psd_tools() -> None:
    """Check that documents can be written and read.

    Raises:
        LayerFileError: psd-tools is not installed.
    """
    _psd_tools()


def write_psd(path: Path, layers: Iterable[StoredLayer], size: tuple[int, int]) -> None:
    """Save layers, lowest first, on a canvas of this width and height; psd-tools adds their composite.

    Raises:
        LayerFileError: psd-tools is not installed.
    """
    # The mode with opacity, because in one without it a layer's own becomes a separate mask.
    document = _psd_tools().PSDImage.new("RGBA", size, color=255)
    for stored in layers:
        layer = document.create_pixel_layer(stored.picture, top=stored.top, left=stored.left)
        layer.name, layer.visible, layer.opacity = stored.name, stored.visible, round(255 * stored.opacity)
    document.save(path)


def read_psd(path: Path) -> tuple[list[StoredLayer], tuple[int, int]]:
    """Open a document: its layers, lowest first and taken out of their groups, and the canvas' width and height.

    Raises:
        LayerFileError: a broken file, another colour mode than RGB with 8 bits, or layers that are not plain pictures
            blended normally; or psd-tools is not installed.
    """
    library = _psd_tools()
    try:
        document = library.PSDImage.open(path)
        if document.pil_mode not in ("RGB", "RGBA") or document.depth != 8:
            raise LayerFileError(
                f"{path.name} is {document.pil_mode} with {document.depth} bits; expected RGB with 8. Convert it "
                "(Image, Mode) and save it again."
            )
        require_size(document.size, [layer.size for layer in document.descendants() if not layer.is_group()])
        return list(_layers(document, True)), document.size
    except LayerFileError:
        raise
    except Exception as error:  # of a broken file the library raises whatever it stumbles over
        raise LayerFileError(f"{path.name} cannot be read as a Photoshop document: {error}. Save it again.") from error


def _layers(group: "GroupMixin", visible: bool) -> Iterator[StoredLayer]:
    """Lowest first, as the document lists them."""
    for layer in group:
        seen, opacity = visible and layer.visible, layer.opacity / 255 * _fill(layer)
        mode = layer.blend_mode.name.lower()
        _require_plain(layer)
        if layer.is_group():
            require_normal(layer.name, mode, (NORMAL, THROUGH))
            require_opaque_group(layer.name, opacity)
            yield from _layers(layer, seen)
            continue
        require_normal(layer.name, mode, (NORMAL,))
        if layer.width and layer.height:
            yield StoredLayer(layer.name, _picture(layer), layer.left, layer.top, seen, opacity)


def _require_plain(layer: "Layer") -> None:
    """Refuse what changes pixels in ways that they do not show by themselves."""
    problem = ""
    if layer.has_effects():
        problem = "has layer effects"
    elif layer.clipping:
        problem = "is clipped to the layer below it"
    elif layer.is_group():
        problem = "is a group with a mask" if layer.has_mask() else ""
    elif layer.kind not in WITH_PIXELS:
        problem = f"is of the kind {layer.kind}"
    elif layer.has_vector_mask() and not layer.vector_mask.disabled:
        problem = "has a vector mask"
    elif layer.mask is not None and not layer.mask.disabled and _mask_setting(layer, "user_mask_feather", 0):
        problem = "has a feathered mask"
    elif layer.width and layer.height and layer.topil() is None:
        problem = "has no pixels of its own"
    if problem:
        raise LayerFileError(
            f'The layer "{layer.name}" {problem}; expected plain pixels. Rasterise it in the painting program, or '
            "merge it with what lies below it."
        )


def _fill(layer: "Layer") -> float:
    """The second opacity of a layer (Fill), 0..1; without effects it works as the first does."""
    from psd_tools.constants import Tag

    return layer.tagged_blocks.get_data(Tag.BLEND_FILL_OPACITY, 255) / 255


def _mask_setting(layer: "Layer", name: str, default: float) -> float:
    found = getattr(layer.mask.parameters, name, None)
    return default if found is None else found


def _picture(layer: "Layer") -> Image.Image:
    """Its own pixels as RGBA, with its mask multiplied in."""
    picture, mask = layer.topil().convert("RGBA"), layer.mask
    if mask is None or mask.disabled:
        return picture
    shown = Image.new("L", picture.size, mask.background_color)
    if mask.width and mask.height:
        shown.paste(mask.topil(), (mask.left - layer.left, mask.top - layer.top))
    density = _mask_setting(layer, "user_mask_density", 255) / 255
    share = 1 - density * (1 - np.asarray(shown, np.float32) / 255)
    alpha = np.asarray(picture.getchannel("A"), np.float32) * share
    picture.putalpha(Image.fromarray(alpha.round().astype(np.uint8)))
    return picture
