"""Prompts taken apart into layers."""

import pytest
from stagecraft.core.text2layer.prompts import MOST_LAYERS, LayerPrompts, split_prompt
from stagecraft.evaluation.sets.sets import load_presence
from stagecraft.sticker_world.world.concepts import BACKGROUNDS


@pytest.mark.parametrize(
    ("prompt", "phrases", "background"),
    [
        ("a dog", ("a dog",), ""),
        ("a dog, a cat and an apple on a green meadow", ("a dog", "a cat", "an apple"), "on a green meadow"),
        ("a dog, a cat, and an apple", ("a dog", "a cat", "an apple"), ""),
        ("A photo of a red apple with a bus at night", ("a red apple", "a bus"), "at night"),
        ("a cat in front of a dog on the beach", ("a dog", "a cat"), "on the beach"),
        ("a cat in front of a dog and a bus", ("a dog", "a bus", "a cat"), ""),
        ("a dog next to a tree inside a room", ("a dog", "a tree"), "inside a room"),
        ("a sandy android; a hand", ("a sandy android", "a hand"), ""),
        ("a bus on a road\n\n  a dog with a hat,\n", ("a bus on a road", "a dog with a hat"), ""),
    ],
)
def test_a_prompt_is_taken_apart(prompt, phrases, background):
    assert split_prompt(prompt) == LayerPrompts(phrases, background)


def test_a_background_that_is_given_wins():
    assert split_prompt("a dog on the beach", "at night") == LayerPrompts(("a dog",), "at night")
    assert split_prompt("a dog\na cat", " at night ") == LayerPrompts(("a dog", "a cat"), "at night")


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_evaluated_prompts_have_their_things_and_their_place(objects):
    for prompt in load_presence(objects):
        found = split_prompt(prompt.prompt)
        assert tuple(phrase.split(" ", 1)[1] for phrase in found.phrases) == prompt.concepts
        assert found.background in BACKGROUNDS[prompt.background]


@pytest.mark.parametrize("prompt", ["", " \n ,", "; ".join(["a dog"] * (MOST_LAYERS + 1))])
def test_no_layers_and_too_many_are_refused(prompt):
    with pytest.raises(ValueError, match=r"prompt is empty|at most 16"):
        split_prompt(prompt)
