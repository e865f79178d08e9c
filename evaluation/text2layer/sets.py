"""What Text2Layer's evaluation asks for: held-out prompts of one, two and three things, and scenes in layers."""

import numpy as np

from ...sticker_world.text2layer.samples import whole_sample
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.scene import make_scene
from ..judging.scoring import spread
from ..sets.sets import PresencePrompt, exactly, load_presence
from .scores import TwoLayers

COUNTS = (1, 2, 3)  # things in a prompt; a third of the pictures each
SCENES_SEED, SCENES_TUNING_SEED, PROMPTS_TUNING_SEED = 7_061, 7_062, 7_063


def held_out_prompts(things: int, number: int, *, tuning: bool) -> list[PresencePrompt]:
    """Prompts of so many things: some of the committed ones, or others that follow from their seed."""
    if not tuning:
        return spread(load_presence(things), number)
    scenes = (make_scene(PROMPTS_TUNING_SEED, i, held_out=True, counts=exactly(things)) for i in range(number))
    found = []
    for index, scene in enumerate(scenes):
        concepts = tuple(thing.concept for thing in scene.objects)
        seed = PROMPTS_TUNING_SEED * 10_000 + 1_000 * things + index
        found.append(PresencePrompt(plain_prompt(concepts, scene.background), concepts, scene.background, seed))
    return found


def table_prompts(number: int, *, tuning: bool) -> list[PresencePrompt]:
    """Held-out prompts of one, two and three things, as many of each as can be."""
    shares = {things: number // len(COUNTS) + (place < number % len(COUNTS)) for place, things in enumerate(COUNTS)}
    return [prompt for things in COUNTS for prompt in held_out_prompts(things, shares[things], tuning=tuning)]


def layered_scenes(number: int, *, tuning: bool) -> list[TwoLayers]:
    """Held-out scenes of one, two, three, one, ... things, all of them before their background."""
    found = []
    for index in range(number):
        seed = SCENES_TUNING_SEED if tuning else SCENES_SEED
        scene = make_scene(seed, index, held_out=True, counts=exactly(COUNTS[index % len(COUNTS)]))
        sample = whole_sample(scene)
        parts = (part.astype(np.float32) / 255 for part in (sample.foreground, sample.background, sample.mask))
        found.append(TwoLayers(*parts))
    return found
