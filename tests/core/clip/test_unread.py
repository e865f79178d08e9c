"""What a text encoder of fixed length does not read, for tokenizers of whole words, of pieces and of letters."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.clip.clip_guide import load_clip
from stagecraft.core.clip.unread import unread_end

EMBEDDED = Path(__file__).resolve().parents[3] / "models" / "hf_clip" / "sticker_world"

LONGEST = 6


def in_pieces(text, letters):
    """Each word's pieces of so many letters, cut as CLIP cuts: a start, what fits, an end."""
    pieces = [word[i : i + letters] for word in text.split() for i in range(0, len(word), letters)]
    return torch.tensor([-1, *(hash(piece) % 10**9 for piece in pieces[: LONGEST - 2]), -2])


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=12), st.integers(1, 4))
def test_what_is_read_and_what_is_not_make_the_text(words, letters):
    text = " ".join(words)
    unread = unread_end(lambda part: in_pieces(part, letters), text)
    pieces = [(-(-len(word) // letters)) for word in words]
    whole = next((i for i in range(len(words)) if sum(pieces[: i + 1]) > LONGEST - 2), len(words))
    assert unread == " ".join(words[whole:])


def test_scripts_without_blanks_lose_their_letters():
    assert unread_end(lambda part: in_pieces(part, 1), "狗" * 30) == "狗" * 26


def test_the_embedded_clip():
    guide = load_clip(EMBEDDED)
    words = [f"a dog and a cat {number}" for number in range(5)]
    text = " ".join(["a dog and a cat on a"] * 20)
    assert guide.unread(" ".join(words)) == "" == guide.unread("") == guide.unread("a dog\u200b   ")
    unread = guide.unread(text)
    assert text.endswith(unread) and len(text.split()) - len(unread.split()) == 75


@pytest.mark.parametrize("text", ["", "  ", "a b c d", "a b c d \n"])
def test_what_fits_is_read(text):
    assert unread_end(lambda part: in_pieces(part, 4), text) == ""
