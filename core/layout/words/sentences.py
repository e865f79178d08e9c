"""English sentences about what is where, read by rules into things and what is said of their places.

A sentence is cut into names and the words that join them. What is said directly behind a name is said of it; what
stands behind a comma or an "and" is said of the things that the part begins with. "The cat" is the cat of before, "a
cat" is another one, "it" is what the sentence or the one before it began with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..prompts import with_article
from ..region import LayoutError, describe
from .tokens import (
    AND,
    COMMA,
    NAME,
    PLACE,
    RELATION,
    SETTING,
    WITH,
    Token,
    is_bare,
    is_scene,
    sentences_of,
    tokens_of,
)
from .vocabulary import ARTICLES, FOREIGN, NUMBERS, PRONOUNS, head_words, is_one_pair, is_plural, singular

MOST_CHARACTERS = 4000  # of a text; more is none that a prompt could be
MOST_THINGS = 16  # more than these find no place that a person would have meant
EACH_OTHER = ("each other", "one another")
EXAMPLE = "a dog left of a cat, under a tree"


@dataclass(frozen=True)
class Statement:
    """What is said of where a thing is.

    Attributes:
        kind: left, right, above, below, on, inside, front, behind, beside or between; of a place, the place.
        thing: whose place it is, by number.
        others: the things that it is seen from; none for a place on the canvas.
        said: the words.
    """

    kind: str
    thing: int
    others: tuple[int, ...]
    said: str


@dataclass
class Description:
    """What sentences say.

    Attributes:
        names: of the things, in the order in which they are said.
        statements: of where they are.
        scene: words for what is behind all things.
        prompt: the sentences, with counted things one by one.
    """

    names: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    scene: list[str] = field(default_factory=list)
    prompt: str = ""


def read_sentences(text: str) -> Description:
    """Read what is where.

    Args:
        text: English sentences.

    Raises:
        LayoutError: nothing in it says where a thing is, or too many things.
    """
    if len(text) > MOST_CHARACTERS:
        raise LayoutError(
            f"The text has {len(text)} characters, no JSON and no line with a place behind a colon. Sentences have "
            f"at most {MOST_CHARACTERS} characters."
        )
    read = Description()
    prompt: list[str] = []
    about: list[int] = []
    has_list = False
    for sentence, signs in sentences_of(text):
        reader = _Reader(read, tokens_of(sentence), about)
        reader.read()
        about, has_list = reader.main or about, has_list or reader.has_list
        for start, end, words in reversed(reader.written_out):
            sentence = sentence[:start] + words + sentence[end:]
        prompt += [sentence, signs + " "]
    if not read.names or not (read.statements or has_list):
        raise LayoutError(
            f"No place of a thing was found in {describe(text.strip())}. Understood are English sentences such as "
            f'"{EXAMPLE}", lines such as "a dog: 0.1 0.3 0.5 0.8", and JSON; see "Sentences" on the help page '
            "of Layout and docs/layouts-from-words.md."
        )
    read.prompt = "".join(prompt).rstrip(" ,")
    return read


class _Reader:
    """Reads one sentence into a description; `about` are the things that the sentence before began with."""

    def __init__(self, read: Description, tokens: list[Token], about: list[int]) -> None:
        self.description, self.tokens, self.about = read, tokens, about
        self.main: list[int] = []  # what this sentence begins with
        self.subjects: list[int] = []  # what its present part is about
        self.last: list[int] = []  # what stands directly before
        self.waiting: list[tuple[str, list[int], str]] = []  # said before the thing that it is said of
        self.written_out: list[tuple[int, int, str]] = []
        self.has_list = False
        self.places_first = False

    def read(self) -> None:
        place = 0
        while place < len(self.tokens):
            token = self.tokens[place]
            if token.kind == NAME:
                place = self._read_subjects(place)
            elif token.kind in (RELATION, SETTING):
                place = self._read_relation(place)
            else:
                if token.kind == PLACE:
                    self._read_place(place)
                place += 1
        for kind, others, said in self.waiting:
            self._say(kind, self.main or self.about, others, said)

    def _kind(self, place: int) -> str:
        return self.tokens[place].kind if 0 <= place < len(self.tokens) else ""

    def _read_subjects(self, place: int) -> int:
        """Read names that no relation stands before, one or several: "a cat, a dog and a bird"."""
        names, end = self._list(place, False)
        is_said = bool(self.waiting) or self._kind(end) in (RELATION, PLACE) or len(names) > 1
        if self._kind(end) == WITH and is_scene(names[0].text) and not self._known(names[0]):
            self.description.scene.append(names[0].text)
            return end
        if len(names) == 1 and self._kind(end) in ("", COMMA) and is_scene(names[0].text) and not is_said:
            self.description.scene += [] if self._known(names[0]) else [names[0].text]
            return end
        if not is_said and is_bare(names[0].text):
            return end  # a style, such as "oil painting", and no thing
        things = [thing for name in names for thing in self._things(name)]
        self.has_list = self.has_list or (len(things) > 1 and not all(is_bare(name.text) for name in names))
        self.subjects = self.last = things
        self.main = self.main or things
        for kind, others, said in self.waiting:
            self._say(kind, things, others, said)
        self.waiting = []
        return end

    def _list(self, place: int, is_object: bool) -> tuple[list[Token], int]:
        """Names that belong together, and where they end; behind a relation "and" may begin another part instead."""
        found = [self.tokens[place]]
        end = place + 1
        while True:
            last = end
            while self._kind(last) == COMMA and self._kind(last + 1) == NAME:
                last += 2
            last += self._kind(last) == COMMA and self._kind(last + 1) == AND
            if self._kind(last) != AND or self._kind(last + 1) != NAME:
                return found, end
            if is_object and self._kind(last + 2) in (RELATION, PLACE):
                return found, end
            found += [token for token in self.tokens[end : last + 2] if token.kind == NAME]
            end = last + 2

    def _read_place(self, place: int) -> None:
        """A place on the canvas, of the things before it or, where a part begins with it, of those behind it."""
        token = self.tokens[place]
        self.places_first = self.places_first or not self.subjects
        begins = self._kind(place - 1) in (COMMA, AND, WITH) and self._kind(place + 1) == NAME
        if self.places_first or begins:
            self.waiting.append((token.value, [], token.text))
        else:
            self._say(token.value, self._holders(place), [], token.text)

    def _holders(self, place: int) -> list[int]:
        return self.last if self._kind(place - 1) == NAME else self.subjects

    def _read_relation(self, place: int) -> int:
        token = self.tokens[place]
        holders = self._holders(place)
        if self._kind(place + 1) != NAME:  # "a house, a bird above": seen from what the sentence is about
            others = self.main if self.main != holders else self.about
            if holders and others and token.kind == RELATION:
                self._say("beside" if token.value == "at" else token.value, holders, others, token.text)
            return place + 1
        names, end = self._list(place + 1, True)
        if token.value == "between" and len(names) == 1 and self._kind(end) == AND and self._kind(end + 1) == NAME:
            names, end = [*names, self.tokens[end + 1]], end + 2
        first = names[0]
        said = f"{token.text} {' and '.join(name.text for name in names)}"
        is_within = token.value in ("inside", "on", "at") and is_scene(first.text) and not self._known(first)
        if token.kind == SETTING or is_within:
            self.description.scene.append(f"{token.text.strip().lower()} {first.text}")
            names = names[1:]
            if not names:
                # "a car on a road above a house": what comes next is said of the car.
                self.last = holders
                return end
        kind = "beside" if token.value in ("at", SETTING) else token.value
        if first.text.lower() in EACH_OTHER:
            for before, after in zip(holders, holders[1:], strict=False):
                self._say(kind, [before], [after], said)
            return end
        others = [thing for name in names for thing in self._things(name, is_object=True)]
        if not others:
            raise LayoutError(f'"{said}" means a thing that was not said before. Call it by its name.')
        self.last = others
        if holders:
            self._say(kind, holders, others, said)
        else:
            self.waiting.append((kind, others, said))
        return end

    def _say(self, kind: str, things: Sequence[int], others: Sequence[int], said: str) -> None:
        for thing in things:
            words = f"{self.description.names[thing]} {said[:1].lower()}{said[1:]}"
            seen_from = tuple(each for each in dict.fromkeys(others) if each != thing)
            if others and not seen_from:
                raise LayoutError(
                    f'"{words}" sees a thing from itself. Call the other one "another" or by its own name.'
                )
            if kind == "between" and len(seen_from) < 2:
                raise LayoutError(f'"{words}" names one thing; expected two, such as "between a cat and a tree".')
            pairs = [(seen_from[0], seen_from[-1])] if kind == "between" else [(each,) for each in seen_from] or [()]
            self.description.statements += [Statement(kind, thing, pair, words) for pair in pairs]

    def _things(self, name: Token, is_object: bool = False) -> list[int]:
        """Numbers of the things that a name means, those of before or new ones."""
        words = name.text.split()
        if name.text.lower() in PRONOUNS:
            in_first_part = not self.main or (self.subjects is self.main and is_object)
            return self.about if in_first_part else self.main
        if words[0].lower() in FOREIGN:
            raise LayoutError(
                f'"{describe(name.text)[1:-1]}" is no English name of a thing. Only English sentences are understood; '
                'in other languages write lines such as "ein Hund: 0.1 0.3 0.5 0.8".'
            )
        if known := self._known(name):
            return known
        count, rest = _counted(words)
        phrase = " ".join(words)
        if count > 1:
            phrase = with_article(" ".join(rest))
            self.written_out.append((name.start, name.end, f"{', '.join([phrase] * (count - 1))} and {phrase}"))
        self.has_list = self.has_list or count > 1
        first = len(self.description.names)
        self.description.names += [phrase] * count
        if len(self.description.names) > MOST_THINGS:
            raise LayoutError(
                f"The sentences name more than {MOST_THINGS} things; at most {MOST_THINGS} find a place by words. "
                'Leave some out, or write one line for each, such as "a dog: 0.1 0.3 0.5 0.8".'
            )
        return list(range(first, first + count))

    def _known(self, name: Token) -> list[int]:
        """The things of before that "the ..." means, or a name without an article; all of them for a plural."""
        words = name.text.lower().split()
        if words[0] != "the" and not is_bare(name.text):
            return []
        plain = _plain(words)
        own = [each.lower().split() for each in self.description.names]
        found = [
            i
            for i, each in enumerate(own)
            if plain and _plain(each)[-1:] == plain[-1:] and set(plain) <= set(_plain(each))
        ]
        return found if is_plural(head_words(words)[-1]) else found[:1]


def _plain(words: Sequence[str]) -> list[str]:
    """A name's words up to its noun, which is made singular, without articles and numbers."""
    kept = [word for word in words if word not in ARTICLES and word not in NUMBERS]
    kept = head_words(kept)
    return [*kept[:-1], singular(kept[-1])] if kept else []


def _counted(words: list[str]) -> tuple[int, list[str]]:
    """How many things a name means, and the name of one of them without an article."""
    low = [word.lower() for word in words]
    skip = int(low[0] == "the" and len(words) > 1)
    if low[skip] in ("a", "the") and low[skip + 1 : skip + 3] in (["pair", "of"], ["couple", "of"]) and len(words) > 3:
        rest, count = words[skip + 3 :], 2
        if is_one_pair(head_words(rest)[-1]):
            return 1, words
    else:
        rest, count = words[skip + 1 :], NUMBERS.get(low[skip], 1)
    if count == 1 or not rest:
        return 1, words
    plurals = [place for place, word in enumerate(head_words(rest)) if is_plural(word)]
    return count, [singular(word) if place in plurals[-1:] else word for place, word in enumerate(rest)]
