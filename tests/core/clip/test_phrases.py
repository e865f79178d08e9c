"""The search for phrases among tokens, against a slow one over letters, and what must not change what it finds."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stagecraft.core.clip.phrases import VECTOR, find_phrases, words_of
from stagecraft.core.clip.pieces import Spelling

NOUNS = ["fire", "truck", "red", "dog", "driver"]
PHRASE = st.lists(st.sampled_from(NOUNS), min_size=1, max_size=3).map(" ".join)
CAPTION = st.lists(st.sampled_from([*NOUNS, "a", "and", "on"]), min_size=1, max_size=12).map(" ".join)


def cut(text, places):
    """A text in tokens that end at some of its letters: a tokenizer that knows no words."""
    edges = sorted({0, len(text), *(place for place in places if 0 < place < len(text))})
    return [text[start:end].encode() for start, end in zip(edges, edges[1:], strict=False)]


def asked(*phrases):
    return [words_of([phrase.encode()]) for phrase in phrases]


def found(caption, *phrases, **more):
    """Tokens of phrases in a caption whose words and signs, parted by blanks, are one token each."""
    return find_phrases(words_of([f"{each} ".encode() for each in caption.split(" ")]), asked(*phrases), **more)


def slow(text, tokens, phrases):
    """Every token that has a letter in a phrase, where no longer phrase has it too; letter by letter."""
    spans = {}
    for phrase in phrases:
        for at in range(len(text)):
            if f" {text} ".startswith(f" {phrase} ", at):
                spans.setdefault(phrase, []).append((at, at + len(phrase)))
    letters = [i for i, token in enumerate(tokens) for _ in token]

    def covers(phrase, token):
        return any(
            letters[at] == token and not text[at].isspace()
            for start, end in spans.get(phrase, ())
            for at in range(start, end)
        )

    def size(phrase):
        return phrase.count(" "), len(phrase.replace(" ", ""))

    return [
        [
            token
            for token in range(len(tokens))
            if covers(phrase, token) and not any(covers(p, token) and size(p) > size(phrase) for p in phrases)
        ]
        for phrase in phrases
    ]


@given(CAPTION, st.lists(PHRASE, min_size=1, max_size=4), st.sets(st.integers(1, 60)))
@example("a fire truck and a fire", ["fire truck", "fire"], set())
def test_a_token_belongs_to_the_longest_phrase_that_covers_it(caption, phrases, places):
    tokens = cut(caption, places)
    assert find_phrases(words_of(tokens), asked(*phrases), endings=False) == slow(caption, tokens, phrases)


@given(CAPTION, st.lists(PHRASE, min_size=1, max_size=4))
def test_the_order_of_phrases_changes_nothing_and_only_a_phrase_of_equal_words_shares(caption, phrases):
    straight = found(caption, *phrases)
    assert found(caption, *phrases[::-1]) == straight[::-1]
    said = [phrase for phrase in phrases if f" {phrase} " in f" {caption} "]
    for phrase, positions in zip(phrases, straight, strict=True):
        if positions and phrase not in said:
            for other in said:
                assert not set(positions) & set(found(caption, *phrases)[phrases.index(other)]), "an ending in another"


@given(CAPTION, PHRASE, st.randoms(use_true_random=False))
def test_case_emphasis_and_signs_between_words_change_no_position(caption, phrase, random):
    def dressed(text):
        words = [random.choice([str.upper, str.title, str])(word) for word in text.split()]
        forms = ["{}", "({})", "(({}))", "({}:1.2)", "[{}]", "\\({}\\)", '"{}"']
        return [random.choice(forms).format(word) + " " for word in words]

    plain = find_phrases(words_of([f"{word} ".encode() for word in caption.split()]), asked(phrase))
    other = words_of([word.encode() for word in dressed(caption)])
    assert find_phrases(other, [words_of([each.encode() for each in dressed(phrase)])]) == plain


def test_named_cases():
    assert found("a fire truck and a fire", "a fire truck", "a fire") == [[1, 2], [5]]
    assert found("a fire truck", "a fire", "a fire truck") == [[], [1, 2]]
    assert found("a red dog and a cat", "a red dog", "a small dog") == [[1, 2], []], "an ending within another's name"
    assert found("a red dog and a dog", "a red dog", "a small dog") == [[1, 2], [5]]
    assert found("the cat", "a cat") == [[1]] and found("a small cat", "a cat") == [[2]]
    assert found("a dog and a dog", "a dog", "dog") == [[1, 4], [1, 4]]
    assert found("a hot-air balloon", "a hot air balloon") == [[1, 2]]
    assert found("red , dog and red dog", "red dog") == [[4, 5]], "as it is written, if it stands there"
    assert found("a St. Bernard", "a St Bernard") == [[1, 2]]
    assert found("an A-frame house", "A-frame house") == [[1, 2]]
    assert found("A-frame", "A-frame") == [[0]]
    assert found("nothing", "!?") == [[]] and find_phrases([], asked("a dog")) == [[]] and found("a dog") == []


def test_what_is_written_differently_and_means_the_same():
    assert found("ein su\u0308ßes M\u00c4DCHEN", "süsses mädchen") == [[1, 2]]
    assert found("ｄｏｇ", "dog") == [[0]]
    letters = "一只狗和猫"
    assert find_phrases(words_of([letter.encode() for letter in letters]), asked("狗", "猫")) == [[2], [4]]
    torn = "狗 🐕 dog".encode()
    assert find_phrases(words_of([torn[i : i + 1] for i in range(len(torn))]), asked("狗", "🐕")) == [
        [0, 1, 2],
        [4, 5, 6, 7],
    ]


def test_vectors_of_textual_inversions_are_stepped_over_unless_they_are_named():
    caption = f"a red {VECTOR}01 {VECTOR}02 dog"
    assert found(caption, "a red dog") == [[1, 4]]
    assert found(caption, f"{VECTOR}01 {VECTOR}02") == [[2, 3]]
    assert found(caption, f"a {VECTOR}03") == [[]]


@pytest.mark.parametrize(
    ("spelling", "pieces", "text"),
    [
        (Spelling.CLIP, ["ste", "go</w>", "dog</w>", "ð", "ŁĲ", "ķ</w>"], "stego dog 🐕 "),
        (Spelling.SENTENCE_PIECE, ["\u2581a", "\u2581d", "og", "<0x0A>", "狗"], " a dog\n狗"),
        (Spelling.BYTES, ["a", "\u0120dog", ",c", "at", "\u010a", "çĭ", "Ĺ"], "a dog,cat\n狗"),
    ],
)
def test_pieces_say_what_was_cut(spelling, pieces, text):
    assert b"".join(map(spelling.read, pieces)).decode() == text
    assert Spelling.of([*pieces, *(["\u2581"] if spelling is Spelling.SENTENCE_PIECE else [])]) is spelling
