"""Cuts a sentence about places into names and the words between them that say where things are."""

import re
from dataclasses import dataclass, replace

from .vocabulary import (
    COLOURS,
    DETERMINERS,
    OPENINGS,
    POSTURES,
    PREPOSITIONS,
    PRONOUNS,
    SCENES,
    SIZES,
    STANDING,
    WORN,
    head_words,
    is_plural,
)

NAME, RELATION, PLACE, SETTING, WITH, AND, COMMA = "name", "relation", "place", "setting", "with", "and", ","
_PART = r"(?:[\s-]+hand)?(?:\s+(?:side|corner|edge|half|part|third))?"
_PICTURE = r"(?:\s+of\s+(?:the|this)\s+(?:picture|image|canvas|frame|scene|photo|painting))?" + rf"(?!{_PART}\s+of\b)"
_PLACES = (
    r"(?:(?:in|at|on|to|near)\s+)?(?:the\s+)?(?:far\s+|very\s+)?(?P<row>top|upper|bottom|lower)[\s-]+(?P<side>left|right)"
    rf"{_PART}{_PICTURE}",
    r"(?!on\s+top\b)(?:in|at|on|to|near)\s+(?:the\s+)?(?:far\s+|very\s+)?(?P<where>left|right|top|upper|bottom|lower|middle|"
    rf"cent(?:er|re)|background|foreground|distance){_PART}{_PICTURE}",
    r"(?P<bare>left|right)(?=\s*(?:,|$|and\b))",
)
# By what they mean; of several that fit the first counts.
_RELATIONS = {
    "left": r"(?:to|on|at)\s+(?:the|its)\s+(?:far\s+)?left(?:[\s-]+hand)?(?:\s+side)?\s+of|left\s+of|left\s+from",
    "right": r"(?:to|on|at)\s+(?:the|its)\s+(?:far\s+)?right(?:[\s-]+hand)?(?:\s+side)?\s+of|right\s+of|right\s+from",
    "front": r"in\s+front\s+of",
    "behind": r"behind|in\s+back\s+of|at\s+the\s+back\s+of",
    "between": r"in\s+between|between",
    "beside": r"next\s+to|beside|alongside|adjacent\s+to|close\s+to|near\s+to|near|against|"
    r"by(?=\s+(?:a|an|the|it|him|her|them)\b)",
    "on": r"on\s+(?:the\s+)?top\s+of|at\s+the\s+top\s+of|atop|upon|onto|on",
    "inside": r"in\s+the\s+(?:middle|cent(?:er|re))\s+of|inside\s+of|inside|within|into|in",
    "above": r"above|over",
    "below": r"underneath|beneath|below|under",
    "at": r"at",
}
_MARKER = re.compile(
    r"(?<![\w'-])(?:(?P<place>"
    + "|".join(_PLACES)
    + r")|(?:(?:directly|immediately|just|right|slightly|high|far|somewhere)\s+)?(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in _RELATIONS.items())
    + r")|(?P<setting>during|across|along|throughout|through|amid|amidst)|(?P<with>with)|(?P<and>and|plus|&))(?![\w'-])"
    r"|(?P<comma>,|\b(?:while|but|whereas)\b)",
    re.IGNORECASE,
)
_JOINS_LINES = re.compile(
    r"(?:^|[\s,])(?:of|to|and|with|a|an|the|between|"
    + "|".join(
        (_RELATIONS["above"], _RELATIONS["below"], "in", "on", "at", "behind", "near", "beside", "inside", "is", "are")
    )
    + r")$|,$",
    re.IGNORECASE,
)
_PLACE_NAMES = {"upper": "top", "lower": "bottom", "center": "middle", "centre": "middle", "distance": "background"}


@dataclass(frozen=True)
class Token:
    """A part of a sentence.

    Attributes:
        kind: what it is, one of the names above.
        value: which relation or place.
        start: where it begins in the sentence.
        end: where it ends.
        text: what the sentence says there, for a name without verbs such as "there is".
    """

    kind: str
    value: str
    start: int
    end: int
    text: str


def sentences_of(text: str) -> list[tuple[str, str]]:
    """Sentences of a text, each with the signs behind it; a line's end is a sentence's unless the next goes on."""
    lines = [line.strip() for line in text.splitlines()]
    joined = ""
    for line in lines:
        if not line or line.startswith("#"):
            continue
        goes_on = _JOINS_LINES.search(joined) or ((first := _MARKER.match(line)) and not first["place"])
        joined += (" " if goes_on else "\n" if joined else "") + line
    parts = re.split(r"((?:[.;!?\u2026]+(?=\s|$)|\n)\s*)", joined)
    signs = [*parts[1::2], ""]
    return [(part.strip(), sign.strip() or ",") for part, sign in zip(parts[::2], signs, strict=True) if part.strip()]


def tokens_of(sentence: str) -> list[Token]:
    """Parts of one sentence; what belongs to a name, such as "with a hat" or "in a red dress", is in its name."""
    found: list[Token] = []
    before = 0
    for match in _MARKER.finditer(sentence):
        found += _names(sentence, before, match.start(), not found[1:])
        found.append(_marker(match))
        before = match.end()
    found += _names(sentence, before, len(sentence), not found[1:])
    return _joined(found, sentence)


def is_bare(name: str) -> bool:
    """Whether a name begins without an article, a number or the like."""
    return name.split()[0].lower() not in DETERMINERS


def is_scene(name: str) -> bool:
    """Whether a name is a place of many things: "a park", "the grass"."""
    return bool(set(_head(name)) & SCENES)


def _head(name: str) -> tuple[str, ...]:
    return tuple(word.strip(".,!'\"").lower() for word in head_words(name.split())[-1:])


def _marker(match: re.Match[str]) -> Token:
    kinds = {"place": PLACE, "setting": SETTING, "with": WITH, "and": AND, "comma": COMMA}
    said = (match.start(), match.end(), match[0])
    for group, kind in kinds.items():
        if match[group] and group != "place":
            return Token(kind, group, *said)
    if not match["place"]:
        return Token(RELATION, next(kind for kind in _RELATIONS if match[kind]), *said)
    words = [match[group].lower() for group in ("row", "side", "where", "bare") if match[group]]
    return Token(PLACE, " ".join(_PLACE_NAMES.get(word, word) for word in words), *said)


def _names(sentence: str, start: int, end: int, is_first: bool) -> list[Token]:
    """A name between two markers, or two where an inversion puts them beside each other: "under a tree sits a dog"."""
    words = [(match.start() + start, match.end() + start) for match in re.finditer(r"\S+", sentence[start:end])]
    low = [sentence[slice(*span)].lower() for span in words]
    cuts = [0]
    for place in range(1, len(low)):
        before = low[place - 1]
        is_inverted = before in STANDING or (is_first and before not in PREPOSITIONS and not before.endswith("ing"))
        # Only behind the words that the sentence begins with: "a dog a cat" has no verb between them.
        if low[place] in DETERMINERS - {"one"} and is_inverted and start and before not in DETERMINERS:
            cuts.append(place)
    pieces = (words[first:last] for first, last in zip(cuts, [*cuts[1:], len(words)], strict=True))
    return [name for piece in pieces if (name := _name(sentence, piece))]


def _name(sentence: str, words: list[tuple[int, int]]) -> Token | None:
    """A name without what only says that the thing is there; None if nothing else is said."""
    said = sentence[words[0][0] : words[-1][1]] if words else ""
    if opening := OPENINGS.match(said):
        words = [span for span in words if span[0] >= words[0][0] + opening.end()]
    while words and sentence[slice(*words[0])].lower() in STANDING:
        words = words[1:]
    while words and sentence[slice(*words[-1])].lower() in STANDING:
        words = words[:-1]
    left = [sentence[slice(*span)].lower() for span in words]
    if not any(map(str.isalnum, "".join(left))) or set(left) <= POSTURES:
        return None
    start, end = words[0][0], words[-1][1]
    return Token(NAME, "", start, end, sentence[start:end])


def _joined(tokens: list[Token], sentence: str) -> list[Token]:
    """Names with what belongs to them."""
    kept: list[Token] = []
    place = 0
    while place < len(tokens):
        token, after = tokens[place], tokens[place + 1] if place + 1 < len(tokens) else None
        if kept and kept[-1].kind == NAME and after and after.kind == NAME and _belongs(kept[-1], place, tokens):
            kept[-1] = replace(kept[-1], end=after.end, text=sentence[kept[-1].start : after.end])
            place += 2
        else:
            kept.append(token)
            place += 1
    return kept


def _belongs(name: Token, place: int, tokens: list[Token]) -> bool:
    """Whether a marker and the name behind it only tell more about the name before them."""
    marker, after = tokens[place], tokens[place + 1]
    behind = [*tokens[place + 2 : place + 4], None, None]
    if marker.kind == WITH:
        says_where = behind[0] is not None and behind[0].kind == RELATION
        is_about = behind[1] is None or behind[1].kind != NAME or behind[1].text.lower() in PRONOUNS
        return not (says_where and is_about) and not is_scene(name.text)
    if marker.kind in (AND, COMMA):
        words = [word.lower() for word in name.text.split()]
        rest = words[not is_bare(name.text) :]
        adjectives = bool(rest) and all(word in COLOURS or word in SIZES for word in rest)
        return adjectives and not is_bare(name.text) and is_bare(after.text)
    if marker.text.lower() in ("in", "on", "at") and not is_scene(after.text):
        is_worn = marker.value == "inside" and bool(set(_head(after.text)) & (WORN | COLOURS))
        plural = is_plural(after.text.split()[-1])
        return is_worn or (is_bare(after.text) and not plural and not is_bare(name.text) and not _is_pronoun(after))
    return False


def _is_pronoun(token: Token) -> bool:
    return token.text.lower() in PRONOUNS or token.text.lower() in ("each other", "one another")
