"""Which end of a text a text encoder of fixed length does not read."""

import re
from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

_LONGEST_WORD = 24  # letters; what is longer is no word but a script without blanks


def unread_end(tokens_of: Callable[[str], Tensor], text: str) -> str:
    """The end of a text that its tokens no longer hold: from the first word that is not there whole; "" if all is read.

    What is read is the shortest beginning whose tokens are those of the whole text, so any tokenizer can be asked.

    Args:
        tokens_of: a text's tokens, cut where the encoder ends.
        text: what a person wrote.
    """
    whole = tokens_of(text)
    words = [match.span() for match in re.finditer(r"\S+", text)]
    # Where more words would be more tokens, there is room for all.
    if not words or not torch.equal(tokens_of(f"{text} {text}"), whole):
        return ""

    def is_read(end: int) -> bool:
        return torch.equal(tokens_of(text[:end]), whole)

    start, end = words[bisect_left(words, True, hi=len(words) - 1, key=lambda word: is_read(word[1]))]
    # The last word that has a token may have more that are lost.
    cut = next((at for at in range(start + 1, end) if is_read(at)), end)
    if cut < end and end - start <= _LONGEST_WORD:
        cut = start
    rest = text[cut:].strip()
    # Letters that no tokenizer sees are no loss.
    return "" if torch.equal(tokens_of(rest), tokens_of("")) else rest
