"""What judges say of pictures of which everything is known: real scenes, things that they were never shown, mixtures.

`python stage.py evaluate judges` asks the judges and, beside them, the shipped networks that judged before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from ...core.scores.metrics import mean_class_iou, mean_or_none, retrieval_accuracy
from ...sticker_world.readers.segmenter import spoil
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import CONCEPT_NAMES
from ...sticker_world.world.scene import Scene, make_scene
from .training.distractors import CALIBRATION
from .training.mixtures import MIXTURES
from .training.pictures import CONCEPT, DISTRACTOR, MIXTURE, OTHER, Drawn, draw
from .yardsticks import Yardsticks, to_images

JUDGES = "judges"  # as a method of `evaluate`
SHIPPED, JUDGE = "shipped", "judge"
SEED = 7_330  # of everything here: no judge is trained with it
SCENES = 256
CHOICES = 32  # captions, of which one is the scene's own
DISTRACTORS, OF_EACH_MIXTURE, CONCEPTS = 240, 40, 240  # pictures
HALF = 0.5  # of a thing's pixels: what more of them are called, it is taken for


@dataclass(frozen=True)
class Question:
    """Something that judges are asked; higher or lower is better as `better` says.

    Attributes:
        name: in the table.
        better: "up" or "down".
        pictures: how many it is asked of.
        ask: gives the answer, None where a judge cannot have one.
    """

    name: str
    better: str
    pictures: int
    ask: Callable[[Yardsticks], float | None]


def evaluate() -> dict[str, list[dict]]:
    """Ask the judges, and beside them the shipped networks; returns the answers of a result file."""
    return {"rows": [], "answers": answers({SHIPPED: Yardsticks.shipped(), JUDGE: Yardsticks.load()})}


def answers(judges: dict[str, Yardsticks], share: float = 1.0) -> list[dict]:
    """Ask every judge everything.

    Args:
        judges: by name.
        share: of the pictures; less is for tests.

    Returns:
        Rows of "what", "better", "pictures" and a value for each judge.
    """
    rows = []
    for question in questions(share):
        values = {name: question.ask(judge) for name, judge in judges.items()}
        rows.append({"what": question.name, "better": question.better, "pictures": question.pictures, **values})
    return rows


def questions(share: float = 1.0) -> list[Question]:
    """Everything that judges are asked, with its pictures drawn."""
    scenes = [make_scene(SEED, index, held_out=True) for index in range(max(CHOICES, round(share * SCENES)))]
    damaged = _damaged([scene.image for scene in scenes])
    number = {
        DISTRACTOR: round(share * DISTRACTORS),
        MIXTURE: round(share * OF_EACH_MIXTURE) * len(MIXTURES),
        CONCEPT: round(share * CONCEPTS),
    }
    named = [scene for scene in scenes if scene.objects]
    drawn = {kind: _drawn(kind, count) for kind, count in number.items()}
    asked = [
        Question("real scenes, mean IoU", "up", len(scenes), lambda judge: segmenter_iou(judge, scenes)),
        Question(
            "damaged real scenes, mean IoU", "up", len(scenes), lambda judge: segmenter_iou(judge, scenes, damaged)
        ),
        _taken("concepts, slightly pulled about: known", "up", drawn[CONCEPT], lambda each: each.names[0]),
        _taken("unknown stickers: taken for a concept", "down", drawn[DISTRACTOR], CONCEPT_NAMES),
        _taken("unknown stickers: something else", "up", drawn[DISTRACTOR], (OTHER,)),
    ]
    for mixture in MIXTURES:
        pictures = [each for each in drawn[MIXTURE] if each.names[0] == mixture.__name__]
        called = mixture.__name__.replace("_", " ")
        asked.append(_taken(f"mixtures ({called}): taken for a concept", "down", pictures, CONCEPT_NAMES))
    asked += [
        Question(f"own caption first of {CHOICES}", "up", len(scenes), lambda judge: clip_retrieval(judge, scenes)),
        Question("prompt beats one with a thing exchanged", "up", len(named), lambda judge: _exchanged(judge, named)),
    ]
    return asked


def _drawn(kind: str, number: int) -> list[Drawn]:
    """Pictures with one thing each; of mixtures every kind equally often."""
    if kind != MIXTURE:
        return [draw(np.random.default_rng([SEED, index]), [kind], CALIBRATION) for index in range(number)]
    wanted, found, index = number // len(MIXTURES), [], 0
    counts = dict.fromkeys((each.__name__ for each in MIXTURES), 0)
    while len(found) < wanted * len(MIXTURES):
        each = draw(np.random.default_rng([SEED, index]), [kind])
        index += 1
        if counts[each.names[0]] < wanted:
            counts[each.names[0]] += 1
            found.append(each)
    return found


def _damaged(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """With the blur, noise and shifted colours that generated pictures have."""
    rng = np.random.default_rng(SEED)
    images = spoil(rearrange(to_images(pictures), "b h w c -> b c h w"), rng)
    return list((rearrange(images, "b c h w -> b h w c") * 255).round().to(torch.uint8).numpy())


def segmenter_iou(
    judge: Yardsticks, scenes: Sequence[Scene], pictures: Sequence[np.ndarray] | None = None
) -> float | None:
    """Mean IoU over background and concepts against the scenes' exact labels.

    What a judge calls something else is wrong in these, not a class more.

    Args:
        judge: whose segmenter.
        scenes: with the labels.
        pictures: uint8 (h w 3) in place of the scenes' own.
    """
    order = [0, *(judge.segmenter.class_of(name) for name in CONCEPT_NAMES)]
    truth = np.array(order)[np.stack([scene.labels() for scene in scenes])]
    found = np.stack([judge.labels(picture) for picture in pictures or [scene.image for scene in scenes]])
    return mean_class_iou(found, truth, len(judge.segmenter.classes), order)


def _taken(
    name: str, better: str, pictures: Sequence[Drawn], classes: Sequence[str] | Callable[[Drawn], str]
) -> Question:
    """How often more than half of a picture's one thing is called by names of these classes together."""

    def ask(judge: Yardsticks) -> float | None:
        known = judge.segmenter.classes
        if not callable(classes) and not set(classes) & set(known):
            return None
        taken = []
        for each in pictures:
            wanted = {classes(each)} if callable(classes) else set(classes)
            inside = judge.labels(each.image)[each.labels > 0]
            taken.append(np.isin(inside, [i for i, called in enumerate(known) if called in wanted]).mean() > HALF)
        return mean_or_none(taken)

    return Question(name, better, len(pictures), ask)


def clip_retrieval(judge: Yardsticks, scenes: Sequence[Scene]) -> float | None:
    """How often a scene's own caption is the nearest of `CHOICES`."""
    images = judge.image_features([scene.image for scene in scenes])
    return retrieval_accuracy(images, judge.text_features([scene.caption for scene in scenes]), CHOICES)


def _exchanged(judge: Yardsticks, scenes: Sequence[Scene]) -> float | None:
    """How often a prompt that names what is there fits better than one in which a thing is another."""
    rng, right, wrong, seen = np.random.default_rng(SEED), [], [], []
    for scene in scenes:
        names = [thing.concept for thing in scene.objects]
        others = [name for name in CONCEPT_NAMES if name not in names]
        changed = list(names)
        changed[rng.integers(len(names))] = others[rng.integers(len(others))]
        right.append(plain_prompt(tuple(names), scene.background))
        wrong.append(plain_prompt(tuple(changed), scene.background))
        seen.append(scene.image)
    features, texts = judge.image_features(seen), [judge.text_features(each) for each in (right, wrong)]
    better = [(features * text).sum(-1) for text in texts]
    return mean_or_none((better[0] > better[1]).tolist())
