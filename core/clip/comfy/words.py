"""Finds phrases' tokens in a caption as ComfyUI's tokenizers cut it; `..phrases` searches in what the tokens say."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from comfy.sd1_clip import SDTokenizer
from torch import Tensor

from ...comfy.types import Clip
from ...layout.region import LayoutError
from ..phrases import VECTOR, Word, find_phrases, words_of
from ..pieces import Spelling
from ..vocabulary import END

SPECIAL = re.compile(r"<\|[^|]*\|>")  # of chat templates, where a tokenizer does not say which are special
END_OF_MESSAGE = "<|im_end|>"


def phrase_positions(
    clip: Clip, caption: str, phrase: str, remedy: str = "", encoder: str = "", beside: Sequence[str] = ()
) -> list[int]:
    """Positions of one phrase's tokens in a caption that is about its thing, see `positions_of_phrases`.

    Args:
        clip: the text encoder's tokenizer is asked.
        caption: what was embedded.
        phrase: what to find.
        remedy: what else a person can do.
        encoder: which of several.
        beside: phrases of other things, which the caption may say too; within them the phrase counts only if it stands
            nowhere else.

    Raises:
        LayoutError: the caption does not say it.
    """
    reader = Reader(clip, encoder)
    words, own = reader.words(caption), reader.words(phrase)
    found = find_phrases(words, [own, *map(reader.words, beside)])[0] or find_phrases(words, [own])[0]
    if not found:
        raise LayoutError(_not_said(caption, phrase, remedy))
    return found


def positions_of_phrases(
    clip: Clip, caption: str, phrases: Sequence[str], remedy: str = "", encoder: str = ""
) -> list[list[int]]:
    """Positions of phrases' tokens in the tokenized caption, as ComfyUI lays it out: chunk behind chunk.

    In SD 1.x, SD 2.x and SDXL these are the positions along the token axis of the embedding. SDXL's two text encoders
    share them, so the place in one is the place in both. `find_phrases` says which tokens are whose.

    Args:
        clip: the text encoder's tokenizer is asked.
        caption: what was embedded.
        phrases: all that the caption shall say; every occurrence counts.
        remedy: what else a person can do where a phrase is not found; ends the error's last sentence.
        encoder: which of several text encoders, by its key among what `clip.tokenize` gives; "": the first.

    Returns:
        Ascending positions for each phrase.

    Raises:
        LayoutError: the caption holds no ending of a phrase, or only within other phrases; or a tokenizer that does not
            say what its tokens are.
    """
    return Reader(clip, encoder).positions(caption, phrases, remedy)


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


def token_count(clip: Clip, caption: str, encoder: str = "") -> int:
    """Length of the caption in tokens of one of the text encoders, the first if not said."""
    return sum(map(len, _chunks(clip, caption, encoder)))


@dataclass(frozen=True)
class Span:
    """Where a person's own words lie among the tokens that a text encoder is given.

    Attributes:
        count: of all tokens.
        first: token of the person's text, behind what a template or a start token puts before it.
        last: token behind it.
        words: positions of its tokens, signs among them, but no special ones.
        tail: tokens from the last end of a message on, which some encoders drop.
    """

    count: int
    first: int
    last: int
    words: tuple[int, ...]
    tail: int


def _not_said(caption: str, phrase: str, remedy: str) -> str:
    return (
        f'The prompt "{caption}" of the region "{phrase}" does not say its name, so there is no attention to read. '
        f"Write the name into the prompt{remedy}."
    )


class Reader:
    """Reads texts as one of a CLIP's text encoders cuts them.

    Args:
        clip: the text encoder's tokenizer is asked.
        encoder: which of several, by its key among what `clip.tokenize` gives; "": the first.
    """

    def __init__(self, clip: Clip, encoder: str = "") -> None:
        self.clip, self.encoder = clip, encoder
        part = _tokenizer(clip, encoder or next(iter(clip.tokenize(""))))
        self.vocabulary, self.special = part.inv_vocab, _special_tokens(part)
        self.padding = getattr(part, "pad_token", None)
        # Some give no token at all for no text, not even the template's.
        self.empty = sum(_chunks(clip, "", encoder), []) or sum(_chunks(clip, ".", encoder), [])
        self.spelling = Spelling.of(self.vocabulary.values())

    def words(self, text: str) -> list[Word]:
        """Words of a text among its tokens, without what the tokenizer puts around every text."""
        tokens = sum(_chunks(self.clip, text, self.encoder), [])
        inner = self._inner(tokens)
        return words_of([self._said(token) if position in inner else b"" for position, token in enumerate(tokens)])

    def positions(self, caption: str, phrases: Sequence[str], remedy: str = "") -> list[list[int]]:
        """See `positions_of_phrases`."""
        words = self.words(caption)
        asked = {phrase: self.words(phrase) for phrase in phrases}
        found = dict(zip(asked, find_phrases(words, list(asked.values())), strict=True))
        for phrase, positions in found.items():
            if positions:
                continue
            if find_phrases(words, [asked[phrase]])[0]:
                raise LayoutError(
                    f'The prompt "{caption}" of the region "{phrase}" says its name only within the names of other '
                    "regions, so there is no attention of its own to read. Write it once more into the prompt"
                    f"{remedy}."
                )
            raise LayoutError(_not_said(caption, phrase, remedy))
        return [found[phrase] for phrase in phrases]

    def span(self, text: str) -> Span:
        """Where a text lies among its tokens, templates and padding taken off."""
        tokens = sum(_chunks(self.clip, text, self.encoder), [])
        inner = self._inner(tokens)
        words = tuple(i for i in inner if not isinstance(tokens[i], int) or not self._is_special(tokens[i]))
        ends = [i for i, token in enumerate(tokens) if isinstance(token, int) and self._piece(token) == END_OF_MESSAGE]
        return Span(len(tokens), inner.start, inner.stop, words, len(tokens) - ends[-1] if ends else 0)

    def _inner(self, tokens: list[object]) -> range:
        """Positions of a text's own tokens; padding is no part of what stands around it."""
        start, stop = self._unpadded(tokens)
        empty = self.empty[slice(*self._unpadded(self.empty))]
        own = tokens[start:stop]
        before = _shared(own, empty)
        return range(start + before, stop - min(_shared(own[::-1], empty[::-1]), len(own) - before))

    def _unpadded(self, tokens: list[object]) -> tuple[int, int]:
        """Where the first token stands that is no padding, and where that is which follows the last."""
        kept = [i for i, token in enumerate(tokens) if not isinstance(token, int) or token != self.padding]
        return (kept[0], kept[-1] + 1) if kept else (0, 0)

    def _piece(self, token: int) -> str:
        return self.vocabulary.get(token, "")

    def _is_special(self, token: int) -> bool:
        return token in self.special or SPECIAL.fullmatch(self._piece(token)) is not None

    def _said(self, token: object) -> bytes:
        if isinstance(token, Tensor):
            name = hashlib.sha256(token.detach().float().cpu().numpy().tobytes()).hexdigest()
            return f" {VECTOR}{name} ".encode()
        if not isinstance(token, int) or self._is_special(token):
            return b""
        if token not in self.vocabulary:
            raise LayoutError(
                f"The text encoder's tokenizer cuts a text into tokens such as {token}, which its vocabulary does not "
                "have, so words cannot be found in a prompt. Load the CLIP with the loader of its own model."
            )
        return self.spelling.read(self.vocabulary[token])


def _tokenizer(clip: Clip, encoder: str) -> SDTokenizer:
    """The one of a text encoder's."""
    parts = {name: part for name, part in vars(clip.tokenizer).items() if hasattr(part, "inv_vocab")}
    named = [f"clip_{encoder}", encoder, getattr(clip.tokenizer, "clip", "")]
    part = next((parts[name] for name in named if name in parts), None)
    if part is None and len(parts) == 1:
        part = next(iter(parts.values()))
    if part is None:
        raise LayoutError(
            f"The text encoder's tokenizer, {type(clip.tokenizer).__name__}, does not show its vocabulary, so words "
            "cannot be found in a prompt. Load the CLIP with one of ComfyUI's own loaders."
        )
    return part


def _special_tokens(part: SDTokenizer) -> set[int | None]:
    """Tokens that say nothing."""
    own = (getattr(part, name, None) for name in ("start_token", "end_token", "pad_token"))
    return {*getattr(part.tokenizer, "all_special_ids", ()), *own}


def _shared(tokens: Sequence[object], empty: Sequence[object]) -> int:
    """How many tokens two texts begin with alike."""
    for count, (one, other) in enumerate(zip(tokens, empty, strict=False)):
        if not isinstance(one, int) or one != other:
            return count
    return min(len(tokens), len(empty))


def _chunks(clip: Clip, text: str, encoder: str = "") -> list[list[object]]:
    """Tokens of every chunk: ids, or a textual inversion's vectors; of several encoders the first if not said."""
    found = clip.tokenize(text)
    chunks = found[encoder] if encoder else next(iter(found.values()))
    return [[token for token, *_ in chunk] for chunk in chunks]
