"""Which columns of an embedded prompt are a phrase's: from the position among tokens to that along the embedding.

Text encoders drop templates, one prompt may be embedded by several of them behind each other, and some networks read
another encoder's tokens than those that are embedded. Where an embedding is not as long as one of the known ways makes
it, that is said; a column is never guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...comfy.types import Clip
from ...layout.region import LayoutError
from .words import Reader, Span, token_count

ONE = "one text encoder's tokens"
CLIPS_AND_T5 = "CLIP's tokens, then T5's"
ADAPTED_T5 = "T5's tokens, whatever is embedded"
# Of encoders of which a network reads one vector only, where another gives the tokens.
POOLED = ("l", "g", "byt5", "jina")
KEEPS_A_SIGN = ("qwen3_2b",)  # Ovis drops its template but for the colon
ADAPTED_LENGTH = 512  # Anima's adapter pads to it


@dataclass(frozen=True)
class PromptColumns:
    """Where the words of a prompt are along its embedding.

    Attributes:
        phrases: columns of each phrase, in their order.
        words: columns of all words, signs among them, without special tokens, templates and padding.
        length: of the embedding in tokens.
    """

    phrases: list[list[int]]
    words: list[int]
    length: int

    @property
    def recorded(self) -> list[int]:
        """Columns of the phrases, each once."""
        return sorted({column for each in self.phrases for column in each})


def prompt_columns(
    clip: Clip, caption: str, phrases: Sequence[str], embedded: int, how: str = ONE, remedy: str = ""
) -> PromptColumns:
    """Find phrases in an embedded prompt.

    Columns are counted from the embedding's end, below 0, because a network may pad it in front (Flux.2); those of
    `ADAPTED_T5` are counted from its start, because there it is padded behind.

    Args:
        clip: that has embedded the caption.
        caption: what was embedded.
        phrases: all that it shall say; every occurrence counts.
        embedded: tokens of the embedding.
        how: what stands in it: `ONE`, `CLIPS_AND_T5` or `ADAPTED_T5`.
        remedy: what else a person can do where a phrase is not found; ends the error's last sentence.

    Raises:
        LayoutError: a phrase that the caption does not say, or an embedding of unexpected length.
    """
    keys = list(clip.tokenize(caption))
    if how == ADAPTED_T5:
        parts, length = [(Reader(clip, "t5xxl"), 0)], 0
    elif how == CLIPS_AND_T5:
        parts, length = _clips_and_t5(clip, caption, keys, embedded), embedded
    else:
        # The encoder whose tokens a network reads, of those that a prompt is cut for.
        key = next((key for key in keys if key not in POOLED), keys[0])
        reader = Reader(clip, key)
        dropped = _dropped(clip, caption, reader.span(caption), embedded, keeps_sign=key in KEEPS_A_SIGN)
        parts, length = [(reader, -dropped - embedded)], embedded
    found: list[list[int]] = [[] for _ in phrases]
    words: list[int] = []
    for reader, first in parts:
        for columns, each in zip(found, reader.positions(caption, phrases, remedy), strict=True):
            columns += [first + position for position in each]
        span = reader.span(caption)
        words += [first + position for position in span.words]
        length = length or max(ADAPTED_LENGTH, span.count)
    return PromptColumns(found, words, length)


def _dropped(clip: Clip, caption: str, span: Span, embedded: int, *, keeps_sign: bool) -> int:
    """How many of an encoder's first tokens are not in the embedding.

    Raises:
        LayoutError: it is not known what was dropped, or added.
    """
    missing, template = span.count - embedded, span.first - keeps_sign
    if missing in (0, template):
        return missing
    if missing == template + span.tail:  # the template behind the text, too
        return template
    raise _unexpected(clip, caption, span.count, embedded)


def _clips_and_t5(clip: Clip, caption: str, keys: Sequence[str], embedded: int) -> list[tuple[Reader, int]]:
    """SD 3's encoders, each of which may be missing, and their first columns."""
    network = clip.cond_stage_model
    clips = [key for key in ("l", "g") if key in keys and getattr(network, f"clip_{key}", None) is not None]
    t5 = ["t5xxl"] if "t5xxl" in keys and getattr(network, "t5xxl", None) is not None else []
    counts = {key: token_count(clip, caption, key) for key in (*clips, *t5)}
    of_clips = min((counts[key] for key in clips), default=0)
    expected = of_clips + sum(counts[key] for key in t5)
    if not counts or expected != embedded:
        raise _unexpected(clip, caption, expected, embedded)
    # Both CLIPs cut a text alike, so one of them is enough.
    firsts = {**dict.fromkeys(clips[:1], -embedded), **dict.fromkeys(t5, of_clips - embedded)}
    return [(Reader(clip, key), first) for key, first in firsts.items()]


def _unexpected(clip: Clip, caption: str, count: int, embedded: int) -> LayoutError:
    return LayoutError(
        f"The text encoder, {type(clip.cond_stage_model).__name__}, made {embedded} columns of the {count} tokens of "
        f'the prompt "{caption}": it has dropped or added tokens in a way that Stagecraft does not know, so where its '
        "words are is not known either. Connect the CLIP of the model's own loader, and write the prompt without a "
        "chat template."
    )
