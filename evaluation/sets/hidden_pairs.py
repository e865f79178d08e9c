"""Pairs of which one thing stands behind the other, and what is asked for when that one is taken away or moved aside.

Committed in `layouts/` (made once by `make_pairs.py`). Whoever holds two depth maps keeps the background's and changes
the foreground's; whoever holds one has what was seen in the first picture and has to guess the rest.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ...core.compose_and_conquer.depth_pair import stretch
from ...core.layout.masks import fill_hole
from ...sticker_world.world.captions import plain_prompt
from .pairs import DepthMaps, TwoSprites, depth_maps, rows_of, silhouettes, two_placements
from .sets import Placement, paste

HIDDEN, HIDDEN_TUNING = "cnc_hidden", "cnc_hidden_tuning"
BEFORE, ASIDE, REMOVED = "before", "aside", "removed"  # where the foreground is
PARTLY, WHOLLY = "partly", "wholly"  # how much of the background's thing it hides


@dataclass(frozen=True)
class HiddenPair(TwoSprites):
    """A thing of the background, the first placement, and one of the foreground that hides it, the second.

    Attributes:
        planes: disparities of the farther and of the nearer one.
        aside: left and top of the nearer one where it hides nothing.
    """

    planes: tuple[float, float]
    aside: tuple[int, int]

    @property
    def hidden(self) -> np.ndarray:
        """What the nearer one hides of the farther one: bool (h w)."""
        return self.shapes[0] & self.shapes[1]

    @property
    def kind(self) -> str:
        """Whether anything of the farther one is seen."""
        return WHOLLY if np.array_equal(self.hidden, self.shapes[0]) else PARTLY

    def things(self, where: str) -> tuple[Placement, ...]:
        """What stands there, farthest first."""
        behind, front = self.placements
        moved = replace(front, left=self.aside[0], top=self.aside[1])
        return {BEFORE: (behind, front), ASIDE: (behind, moved), REMOVED: (behind,)}[where]

    def prompt(self, where: str) -> str:
        """Names what stands there; what is taken away is named no more."""
        return plain_prompt(tuple(thing.concept for thing in self.things(where)), self.background)

    def perfect_picture(self, where: str) -> np.ndarray:
        """Its sprites pasted: uint8 (h w 3)."""
        return paste(self.background, self.things(where), self.seed)

    def two_maps(self, where: str) -> tuple[np.ndarray | None, np.ndarray]:
        """Foreground and background depth, (h w) in 0..1; the latter is always the same, the former may be missing."""
        if where == REMOVED:
            return None, self._maps(BEFORE).background
        maps = self._maps(where)
        return maps.foreground, maps.background

    def one_map(self, where: str) -> np.ndarray:
        """All that a single map of the first picture says: its depth (h w) with the foreground's pixels cut out.

        The hole is filled by the depth around it (as Depth Pair does it for one map), because that is the best guess of
        whoever has no other: filled as far away, it would cut the foreground's outline into a thing that is partly
        seen. The foreground's pixels are put back where it stands now.
        """
        first = torch.from_numpy(self._maps(BEFORE).whole)[None, None]
        if where == BEFORE:
            return first[0, 0].numpy()
        near = torch.from_numpy(self.shapes[1])[None, None]
        seen = fill_hole(first, near.float())
        if where == ASIDE:
            front = self.placements[1]
            steps = (self.aside[1] - front.top, self.aside[0] - front.left)
            moved, depth = (torch.roll(each, steps, (2, 3)) for each in (near, first))
            seen = torch.where(moved, depth, seen)
        return stretch(seen)[0, 0].numpy()

    def _maps(self, where: str) -> DepthMaps:
        return depth_maps(silhouettes(self.things(where)), self.planes, 1)


def load_hidden(name: str = HIDDEN) -> tuple[HiddenPair, ...]:
    """Open a set: `HIDDEN` or `HIDDEN_TUNING`."""
    return tuple(
        HiddenPair(
            row["background"],
            two_placements(row["placements"]),
            row["seed"],
            tuple(row["planes"]),
            tuple(row["aside"]),
        )
        for row in rows_of(name)
    )
