"""Where text and picture lie among the tokens of a transformer's attention, which every family orders its own way."""

from dataclasses import dataclass

from .sites import CROSS, SELF


@dataclass(frozen=True)
class TokenOrder:
    """Which tokens are what in one attention call.

    In joint attention text and picture are one sequence, of queries and of keys alike. In a transformer with
    cross-attention one call has the picture's queries and the text's keys, another the picture's of both.

    Attributes:
        text: keys that the prompt's embedding became, in its order; empty where a call has none.
        image: queries of the picture or video that is painted, row-major, frame behind frame; without references.
        grid: rows and columns of a frame in tokens.
        frames: of a video.
        others: keys that are neither: registers, learned padding, other encoders' text, references.
        is_joint: whether the keys hold the picture too, in the places of the queries.
    """

    text: slice
    image: slice
    grid: tuple[int, int]
    frames: int = 1
    others: tuple[slice, ...] = ()
    is_joint: bool = True

    @property
    def words(self) -> int:
        """Tokens of the prompt's embedding."""
        return self.text.stop - self.text.start


@dataclass(frozen=True)
class View:
    """One reading of an attention call.

    Attributes:
        rows: of the queries.
        keys: over which the softmax goes; all of them where it is None.
        words: those among the keys that are asked for by their number.
    """

    rows: slice
    keys: slice | None
    words: slice


def views(order: TokenOrder) -> dict[str, View]:
    """What can be read in a call: its attention to the text ("cross"), to the picture itself ("self"), or both.

    The text's columns are those of the softmax over all keys, as Seg4Diff (arXiv 2509.18096) and FOCUS (arXiv
    2510.02315) read joint attention; the picture's are a softmax over the picture alone, as in a U-Net.
    """
    found = {}
    if order.words:
        found[CROSS] = View(order.image, None, order.text)
    if order.is_joint or not order.words:
        found[SELF] = View(order.image, order.image, slice(0, 0))
    return found
