"""Captions with varied wording. The order of the nouns says nothing about where things are."""

import numpy as np

from ...core.layout.prompts import with_article
from .concepts import ADJECTIVES, BACKGROUNDS, EMPTY_CAPTIONS

OPENINGS = ("", "", "", "a photo of ", "a picture of ", "an image of ")
LINKS = (" and ", " and ", " with ", " next to ")
IN_FRONT = " in front of "
WITHOUT_BACKGROUND = 0.15  # share of captions that leave the background open, as a layer's own prompt does
WITH_ADJECTIVE = 0.2


def _noun_phrase(concept: str, rng: np.random.Generator) -> str:
    adjective = ADJECTIVES.get(concept)
    words = f"{adjective} {concept}" if adjective and rng.uniform() < WITH_ADJECTIVE else concept
    return with_article(words)


def write_caption(
    concepts: list[str], background: str, overlap: tuple[int, int] | None, rng: np.random.Generator
) -> str:
    """Describe a scene in one phrase.

    Args:
        concepts: what stands in the scene, in any order.
        background: a key of `BACKGROUNDS`.
        overlap: indices (nearer, farther) of two concepts of which the first hides part of the second, or None.
        rng: chooses the wording and shuffles the nouns.
    """
    opening = OPENINGS[rng.integers(len(OPENINGS))]
    if not concepts:
        return opening + EMPTY_CAPTIONS[background]
    order = list(rng.permutation(len(concepts)))
    if overlap is not None and rng.uniform() < 0.5:
        order = [*overlap, *(i for i in order if i not in overlap)]
        links = [IN_FRONT, " and "]
    elif len(concepts) == 3:
        links = [", ", " and "]
    else:
        links = [LINKS[rng.integers(len(LINKS))]]
    nouns = [_noun_phrase(concepts[i], rng) for i in order]
    text = nouns[0] + "".join(link + noun for link, noun in zip(links, nouns[1:], strict=False))
    if rng.uniform() < WITHOUT_BACKGROUND:
        return opening + text
    places = BACKGROUNDS[background]
    return f"{opening}{text} {places[rng.integers(len(places))]}"


def plain_prompt(concepts: tuple[str, ...], background: str) -> str:
    """The prompt of the evaluation sets: every concept, plainly worded, before a background."""
    nouns = [with_article(concept) for concept in concepts]
    head = ", ".join(nouns[:-1]) + " and " + nouns[-1] if len(nouns) > 1 else nouns[0]
    return f"{head} {BACKGROUNDS[background][0]}"
