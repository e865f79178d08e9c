"""Pictures: in ComfyUI's input folder, by the names that Load Image uses, and as latents."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..drawing.formats import FORMATS
from ..layout.layer_stack import FINEST
from ..layout.layout import Layout
from ..layout.region import LayoutError
from ..layout.text import read_layout_text
from .types import Vae


def reference_path(name: str, phrase: str) -> Path:
    """Where a region's reference picture lies.

    Args:
        name: as Load Image shows it, such as "dogs/rex.png".
        phrase: the region's, for the message.

    Raises:
        LayoutError: no such file in the input folder.
    """
    path = path_in_input(name)
    if path is None:
        raise LayoutError(
            f'The region "{phrase}" has the reference picture "{name}", which is not in ComfyUI\'s input folder. '
            "Upload it again or remove it from the region."
        )
    return path


def leads_elsewhere(name: str) -> bool:
    """Whether a path that should lie below a folder says, on any system, that it does not. The disk is not asked."""
    return any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def path_in_input(name: str) -> Path | None:
    """The picture of this name, or None where the input folder has none."""
    return path_below(Path(folder_paths.get_input_directory()), name)


def path_below(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder or below it, or None where there is none."""
    # A name in a shared workflow must not lead anywhere else. The name is judged before the disk is asked: on Windows
    # a mere look at another computer's share sends it the user's credentials.
    if leads_elsewhere(name):
        return None
    try:
        folder = folder.resolve()
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL, a link to itself
        return None


def check_references(layout: Layout) -> None:
    """Check that every reference picture of a layout is there.

    Raises:
        LayoutError: one is not.
    """
    for region in layout.regions:
        if region.reference:
            reference_path(region.reference, region.phrase)


def load_references(layout: Layout) -> dict[str, Tensor]:
    """Open the reference pictures of a layout: name -> (h w 4) float32 in 0..1, upright, with opacity.

    A larger picture than any layer needs (`FINEST` along the longer side) is made smaller.

    Raises:
        LayoutError: one is missing or is no picture.
    """
    pictures = {}
    for region in layout.regions:
        if region.reference and region.reference not in pictures:
            path = reference_path(region.reference, region.phrase)
            try:
                with Image.open(path, formats=FORMATS) as image:
                    upright = ImageOps.exif_transpose(image).convert("RGBA")
                upright.thumbnail((FINEST, FINEST))
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
                raise LayoutError(
                    f'The region "{region.phrase}" has the reference picture "{region.reference}", which cannot be '
                    f"opened: {error}."
                ) from None
            pictures[region.reference] = torch.from_numpy(np.asarray(upright, np.float32) / 255)
    return pictures


def reference_times(text: str | None) -> tuple[int, ...]:
    """When each reference picture that a layout's text names was last changed, so that a changed file is read again.

    Only for nodes that read the text: ComfyUI knows no connected value before the run, and what hangs on a node whose
    fingerprint has changed runs again with it. A text that cannot be read, or a picture that is not there, has no time.
    """
    try:
        regions = read_layout_text(text or "").get("regions")
    except LayoutError:
        return ()
    times = []
    for region in regions if isinstance(regions, list) else ():
        name = region.get("reference") if isinstance(region, Mapping) else None
        if name and isinstance(name, str):
            with suppress(LayoutError, OSError, ValueError):
                times.append(reference_path(name, "").stat().st_mtime_ns)
    return tuple(times)


def encode_pictures(vae: Vae, pictures: Tensor) -> Tensor:
    """Encode pictures (b h w 3) of which none is another one's next frame: (b c h w), or (b c 1 h w).

    A video model's VAE takes a batch for the frames of one video, so it is given one picture after the other.
    """
    if getattr(vae, "latent_dim", 2) == 3:
        return torch.cat([vae.encode(picture) for picture in pictures.split(1)])
    return vae.encode(pictures)
