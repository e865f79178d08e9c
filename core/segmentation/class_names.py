"""How a phrase is matched to one of a segmenter's class names."""

import difflib
import re

from .files import SegmenterError

BACKGROUND = "background"  # the class of what no name names; no phrase is matched to it
NEAREST = 5  # names that an error suggests


def match_class(phrase: str, classes: tuple[str, ...]) -> int:
    """Find the class that a phrase names: the known name that ends last in it, so "a red apple" is "apple".

    Upper and lower case do not matter and a plural s is allowed. A name of several words ("traffic light") wins over
    a name of its last word. A class may list synonyms, separated by commas or semicolons ("door; double door").

    Args:
        phrase: what a region is called.
        classes: the segmenter's names; one called "background" (`BACKGROUND`) is never matched.

    Returns:
        Index into `classes`.

    Raises:
        SegmenterError: no name occurs in the phrase; the message lists the nearest names.
    """
    known = {}
    for spell in (plain_name, str):  # a class's own name wins over another's without its ending
        known |= {
            tuple(words_of(spell(name))): index
            for index, names in reversed(list(enumerate(classes)))
            for name in re.split("[,;]", names)
            if words_of(spell(name)) and words_of(spell(name)) != [BACKGROUND]
        }
    longest = max(map(len, known), default=0)
    words = words_of(phrase)
    for end in range(len(words), 0, -1):
        for length in range(min(longest, end), 0, -1):
            part = words[end - length : end]
            for last in _singulars(part[-1]):
                index = known.get((*part[:-1], last))
                if index is not None:
                    return index
    nearest = _nearest_names(words, list(dict.fromkeys(" ".join(name) for name in known)))
    raise SegmenterError(
        f'the segmenter has no class for the phrase "{phrase}". The nearest of its {len(classes)} names: '
        f"{', '.join(nearest)}. Name one of its classes in the phrase, or choose a segmenter that knows the thing."
    )


def is_background(name: str) -> bool:
    """Whether a class is what lies behind all things."""
    return name.strip().lower() == BACKGROUND


def plain_name(name: str) -> str:
    """A class name without the endings of COCO's panoptic classes: "sky-other-merged" -> "sky"."""
    return re.sub(r"(-other)?(-merged|-stuff)$|-other$", "", name.strip())


def words_of(text: str) -> list[str]:
    """The words of a phrase or a name, without capitals and punctuation: "potted_plant" -> ["potted", "plant"]."""
    return re.findall(r"[^\W_]+", text.lower())


def _singulars(word: str) -> tuple[str, ...]:
    """The word, and what it is without a plural ending."""
    if word.endswith("es"):
        return word, word[:-1], word[:-2]
    return (word, word[:-1]) if word.endswith("s") else (word,)


def _nearest_names(words: list[str], names: list[str]) -> list[str]:
    def likeness(name: str) -> float:
        return max((difflib.SequenceMatcher(None, word, name).ratio() for word in words), default=0.0)

    return sorted(names, key=likeness, reverse=True)[:NEAREST]
