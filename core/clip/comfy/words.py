"""Finds a phrase's tokens in a caption, by the tokens themselves."""

from ...comfy.types import Clip
from ...layout.prompts import leading_article
from ...layout.region import LayoutError
from ..vocabulary import END


def phrase_positions(clip: Clip, caption: str, phrase: str, remedy: str = "") -> list[int]:
    """Positions of a phrase's tokens in the embedded caption, as ComfyUI lays it out: chunk behind chunk.

    The phrase is looked for as a run of token ids, so words of several tokens, weights in brackets and captions of
    more than one chunk need no special care. A caption that words the phrase otherwise ("a small cat" for "a cat") is
    searched for the phrase's longest ending that it has: an English phrase ends with its noun. Its article helps to
    find it and is then left out, because an article's attention is nobody's. SDXL's two text encoders share their
    positions, so the place in one is the place in both.

    Args:
        clip: the text encoder's tokenizer is asked.
        caption: what was embedded.
        phrase: what to find; every occurrence counts.
        remedy: what else a person can do where the phrase is not found; ends the error's last sentence.

    Returns:
        Ascending positions along the token axis of the embedding.

    Raises:
        LayoutError: the caption holds no ending of the phrase.
    """
    special = set(_flat(clip, ""))
    words, article = (
        [token for token in _flat(clip, text) if token not in special] for text in (phrase, leading_article(phrase))
    )
    tokens = _flat(clip, caption)
    for start in range(len(words)):
        wanted = words[start:]
        found = [i for i in range(len(tokens) - len(wanted) + 1) if tokens[i : i + len(wanted)] == wanted]
        if found:
            first = max(0, len(article) - start)
            return sorted({i + k for i in found for k in range(first, len(wanted))})
    raise LayoutError(
        f'The prompt "{caption}" of the region "{phrase}" does not say its name, so there is no attention to read. '
        f"Write the name into the prompt{remedy}."
    )


def word_positions(clip: Clip, caption: str) -> list[int]:
    """Positions over which BoxDiff and Attention Refocusing compare the tokens of an embedded caption.

    As their code has it: in SD 1.x every slot but the first and last of each chunk, padding included, because its
    padding has learnt to carry the picture; for other text encoders the words alone.

    Args:
        clip: the text encoder's tokenizer is asked.
        caption: what was embedded.

    Returns:
        Ascending positions along the token axis of the embedding.
    """
    chunks = _chunks(clip, caption)
    kept, start = [], 0
    for chunk in chunks:
        end = len(chunk) - 1 if list(clip.tokenize("")) == ["l"] else chunk.index(END) if END in chunk else len(chunk)
        kept += range(start + 1, start + end)
        start += len(chunk)
    return kept


def token_count(clip: Clip, caption: str) -> int:
    """Length of the embedded caption."""
    return len(_flat(clip, caption))


def _flat(clip: Clip, text: str) -> list[int | None]:
    return [token for chunk in _chunks(clip, text) for token in chunk]


def _chunks(clip: Clip, text: str) -> list[list[int | None]]:
    """Token ids of every chunk, none for a textual inversion's vectors; of several encoders the first."""
    chunks = next(iter(clip.tokenize(text).values()))
    return [[token if isinstance(token, int) else None for token, *_ in chunk] for chunk in chunks]
