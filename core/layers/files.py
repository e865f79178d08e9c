"""Layered pictures in files that painting programs open: Photoshop documents and OpenRaster."""

from pathlib import Path

from ..weights.whole_files import whole_files
from .layered_image import LayeredImage
from .openraster import read_openraster, write_openraster
from .photoshop import read_psd, require_psd_tools, write_psd
from .stored import LayerFileError, StoredPicture, join_stored

PSD, OPENRASTER = ".psd", ".ora"
SUFFIXES = (PSD, OPENRASTER)


def write_layer_file(picture: StoredPicture, path: str | Path) -> None:
    """Save one picture in layers, named and in order; the suffix, .psd or .ora, says which format.

    Files hold 8 bits of straight colour and opacity; what they show is the layered picture's own composite to about one
    of 256 steps.

    Raises:
        LayerFileError: another suffix, or psd-tools is not installed.
        UnwritableError: the disk is full, or lets nobody write there; nothing is left of it.
    """
    path = Path(path)
    _require_suffix(path)
    with whole_files() as beside:
        fill_layer_file(picture, beside(path), path.suffix)


def fill_layer_file(picture: StoredPicture, path: Path, suffix: str) -> None:
    """The same, into a file of any name; the suffix says which format."""
    if suffix.lower() == PSD:
        write_psd(path, picture.trimmed(), picture.merged.size)
    else:
        write_openraster(path, picture.trimmed(), picture.merged)


def require_format(suffix: str) -> None:
    """Check that files of a format can be written and read here.

    Raises:
        LayerFileError: psd-tools is missing for .psd, or it is neither .psd nor .ora.
    """
    _require_suffix(Path(f"layers{suffix}"))
    if suffix.lower() == PSD:
        require_psd_tools()


def read_layer_file(path: str | Path) -> LayeredImage:
    """Open a Photoshop document or an OpenRaster file.

    The lowest visible layer is the background where it covers the canvas; else the background is white. Layers are
    taken out of their groups.

    Returns:
        One picture (b = 1), float32, every layer of the canvas' size.

    Raises:
        LayerFileError: no such file, another format, a broken file, or layers that are not plain pictures blended
            normally; the message names the layer and what to do with it in the painting program.
    """
    path = Path(path)
    _require_suffix(path)
    if not path.is_file():
        raise LayerFileError(f"There is no file {path.name}. Put it there again, or choose another one.")
    return join_stored(*(read_psd if path.suffix.lower() == PSD else read_openraster)(path))


def _require_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise LayerFileError(f'{path.name} has the suffix "{path.suffix}"; expected {" or ".join(SUFFIXES)}.')
