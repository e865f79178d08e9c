"""A CLIP with both towers as the graph hands it on: the name of a folder, which is read when a node needs it.

So a graph that only sees pictures, by the folder's CLIP_VISION, reads no text tower, and needs none.
"""

from dataclasses import dataclass
from functools import cached_property

from ..clip_guide import CLIPGuide, load_clip
from .vision import CLIP_FOLDERS

load_clip_by_name = CLIP_FOLDERS.reader(load_clip)


@dataclass(frozen=True, eq=False)
class FolderClip:
    """A CLIP that is read at its first use, and held as long as this is.

    Attributes:
        name: of the folder in the drop-down.
    """

    name: str

    @cached_property
    def guide(self) -> CLIPGuide:
        """Both towers.

        Raises:
            CLIPFileError: the folder is gone or damaged, or holds one tower alone.
        """
        return load_clip_by_name(self.name)
