"""What the energies, which were written for U-Nets, read of a transformer's maps."""

from collections.abc import Callable, Sequence

from einops import rearrange, reduce, repeat
from torch import Tensor

from ..attention.maps import among_words
from ..attention.sites import CROSS
from .energies import Maps


def energy_of_blocks(energy: Callable[[Maps], Tensor], maps: Maps, compared: Sequence[int] = ()) -> Tensor:
    """An energy of the maps of a transformer's blocks.

    Every frame of a video is a picture with the same layout, so its energy is the mean over frames; what a region's
    positions pay to a place they pay to it in all frames.

    Args:
        energy: maps by site (b heads (h w) m) -> (b).
        maps: by site (b heads (f h w) m), all of one grid.
        compared: which of the m are words that the energy compares with each other at a place. In joint attention most
            of what a place looks at is the picture, less in smaller ones, while in a U-Net words share all of it; so
            they share out here what goes to words. Empty: the energy compares places only.

    Returns:
        (b).
    """
    frames = next(iter(maps)).frames
    read = {}
    for site, found in maps.items():
        if site.stream == CROSS:
            found = among_words(found, compared) if compared else found
            read[site] = rearrange(found, "b heads (f n) m -> (b f) heads n m", f=frames)
        else:
            everywhere = reduce(found, "b heads (f n) o -> b heads n o", "sum", f=frames)
            read[site] = repeat(everywhere, "b heads n o -> (b f) heads n o", f=frames)
    return reduce(energy(read), "(b f) -> b", "mean", f=frames)
