"""Finds a phrase's tokens in a caption, by the tokens themselves."""

from typing import Any

from ..layout import LayoutError


def phrase_positions(clip: Any, caption: str, phrase: str) -> list[int]:  # noqa: ANN401 - ComfyUI's CLIP
    """Positions of a phrase's tokens in the embedded caption, as ComfyUI lays it out: chunk behind chunk.

    The phrase is looked for as a run of token ids, so words of several tokens, weights in brackets and captions of
    more than one chunk need no special care. A caption that words the phrase otherwise ("a small cat" for "a cat") is
    searched for the phrase's longest ending that it has: an English phrase ends with its noun.

    Args:
        clip: the text encoder's tokenizer is asked.
        caption: what was embedded.
        phrase: what to find; every occurrence counts.

    Returns:
        Ascending positions along the token axis of the embedding.

    Raises:
        LayoutError: the caption holds no ending of the phrase.
    """
    special = set(_flat(clip, ""))
    words = [token for token in _flat(clip, phrase) if token not in special]
    tokens = _flat(clip, caption)
    for start in range(len(words)):
        wanted = words[start:]
        found = [i for i in range(len(tokens) - len(wanted) + 1) if tokens[i : i + len(wanted)] == wanted]
        if found:
            return sorted({i + k for i in found for k in range(len(wanted))})
    raise LayoutError(
        f'The prompt "{caption}" of the region "{phrase}" does not say its name, so there is no attention to read. '
        'Write the name into the prompt, or choose another delta than "dynamic".'
    )


def _flat(clip: Any, text: str) -> list[Any]:  # noqa: ANN401
    """Token ids of all chunks; of several encoders the first, because they share the positions."""
    chunks = next(iter(clip.tokenize(text).values()))
    return [token if isinstance(token, int) else None for chunk in chunks for token, *_ in chunk]
