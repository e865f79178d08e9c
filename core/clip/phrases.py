"""Finds phrases among a caption's tokens by what the tokens say, so that one search serves every text encoder.

Words are compared without their case. Signs, the brackets and numbers of emphasis, and a textual inversion's vectors
between words change nothing; only a phrase that names such a vector itself looks for it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

ARTICLES = ("a", "an", "the")
VECTOR = "\ufffc"  # begins the word that stands for a textual inversion's vector; no keyboard types it
# Scripts that put no blanks between words: each of their letters is a word.
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_WORD = re.compile(r"um*|[wm]+")
_EMPHASIS = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*(?=\))")
_BRACKETS = frozenset("()[]{}<>\\\"'*\u201c\u201d\u2018\u2019")
_PARTING = frozenset(",.;:!?|\u3001\u3002")  # what seldom stands between two words of one phrase


@dataclass(frozen=True)
class Word:
    """One word of a text.

    Attributes:
        text: without its case.
        tokens: positions of the tokens that hold any of its letters.
        gap: the signs between the word before and it, brackets and emphasis left out.
        gap_tokens: of those signs.
    """

    text: str
    tokens: frozenset[int]
    gap: str = ""
    gap_tokens: frozenset[int] = frozenset()

    @property
    def is_vector(self) -> bool:
        """Whether it stands for a textual inversion's vector."""
        return self.text.startswith(VECTOR)


def words_of(pieces: Sequence[bytes]) -> list[Word]:
    """Words of a text.

    Args:
        pieces: what each token says, UTF-8 that may break off within a letter; b"" for start, end and padding.
    """
    owners = [position for position, piece in enumerate(pieces) for _ in piece]
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    tokens: list[frozenset[int]] = []
    start = 0
    for letter in text:
        end = start + len(letter.encode("utf-8", "surrogateescape"))
        tokens.append(frozenset(owners[start:end]))
        start = end
    # As long as it was, so that letters keep their places.
    text = _EMPHASIS.sub(lambda match: " " * len(match[0]), text)
    words: list[Word] = []
    before = 0
    for span in _WORD.finditer("".join(map(_kind, text))):
        signs = [i for i in range(before, span.start()) if not text[i].isspace() and text[i] not in _BRACKETS]
        gap = _plain("".join(text[i] for i in signs))
        own = frozenset().union(*tokens[slice(*span.span())])
        words.append(Word(_plain(text[slice(*span.span())]), own, gap, frozenset().union(*(tokens[i] for i in signs))))
        before = span.end()
    return words


def find_phrases(
    caption: Sequence[Word], phrases: Sequence[Sequence[Word]], *, endings: bool = True
) -> list[list[int]]:
    """Tokens of each phrase in a caption; every occurrence counts.

    A token belongs to the longest phrase that covers it: in "a fire truck and a fire" the second fire alone is "a
    fire". Of a phrase that the caption words otherwise ("a small cat" for "a cat") the longest ending is taken that
    stands there outside of the other phrases, for an English phrase ends with its noun. A leading article helps to
    find a phrase and is then left out, because an article's attention is nobody's.

    Args:
        caption: words of what was embedded.
        phrases: words of each phrase; all that share the caption.
        endings: whether a phrase's ending is a find.

    Returns:
        Ascending positions for each phrase; none where the caption does not say it.
    """
    found = [_occurrences(caption, phrase) for phrase in phrases]
    lengths = [_length(phrase) for phrase in phrases]
    longest: dict[int, tuple[int, int]] = {}
    for length, each in zip(lengths, found, strict=True):
        for token in each:
            longest[token] = max(length, longest.get(token, length))
    kept = [{token for token in each if longest[token] == length} for length, each in zip(lengths, found, strict=True)]
    for count in range(max((len(phrase) for phrase in phrases), default=0), 0, -1) if endings else ():
        taken = frozenset().union(*kept)
        for index, phrase in enumerate(phrases):
            # The whole phrase may be missing but for its article, or stand within others only.
            if not kept[index] and count <= len(phrase):
                kept[index] = set(_occurrences(caption, phrase[-count:], taken))
    return [sorted(each) for each in kept]


def _occurrences(caption: Sequence[Word], phrase: Sequence[Word], taken: Iterable[int] = ()) -> frozenset[int]:
    """Tokens of a phrase where it stands outside of taken tokens; with other signs than its own if nowhere else."""
    if not any(word.is_vector for word in phrase):
        caption = _without_vectors(caption)
    wanted, first = [word.text for word in phrase], _article_words(phrase)
    exact, loose = [], []
    for start in range(len(caption) - len(phrase) + 1 if phrase else 0):
        here = caption[start : start + len(phrase)]
        if [word.text for word in here] != wanted:
            continue
        core = here[first:]
        tokens = frozenset().union(*(word.tokens for word in core), *(word.gap_tokens for word in core[1:]))
        if tokens.isdisjoint(taken):
            pairs = zip(here[1:], phrase[1:], strict=True)
            is_exact = all(_PARTING.intersection(there.gap) <= set(own.gap) for there, own in pairs)
            (exact if is_exact else loose).append(tokens)
    return frozenset().union(*(exact or loose))


def _without_vectors(words: Sequence[Word]) -> list[Word]:
    kept, gap, gap_tokens = [], "", frozenset[int]()
    for word in words:
        gap, gap_tokens = gap + word.gap, gap_tokens | word.gap_tokens
        if not word.is_vector:
            kept.append(replace(word, gap=gap, gap_tokens=gap_tokens))
            gap, gap_tokens = "", frozenset()
    return kept


def _article_words(phrase: Sequence[Word]) -> int:
    """How many words a phrase's leading article has; in "A-frame" it is none."""
    return int(len(phrase) > 1 and phrase[0].text in ARTICLES and not phrase[1].gap)


def _length(phrase: Sequence[Word]) -> tuple[int, int]:
    """Words and letters of a phrase without its article."""
    core = phrase[_article_words(phrase) :]
    return len(core), sum(len(word.text) for word in core)


def _plain(text: str) -> str:
    """Without what makes two spellings of one word differ: case, full width, composed and decomposed letters."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _kind(letter: str) -> str:
    """A letter's part in a word: w in it, u one by itself, m a mark on the letter before it, else none."""
    category = unicodedata.category(letter)
    if letter == VECTOR:
        return "w"
    if category.startswith("M"):
        return "m"
    if category == "So" or (letter.isalnum() and unicodedata.name(letter, "").startswith(_UNSPACED)):
        return "u"
    return "w" if letter.isalnum() else " "
