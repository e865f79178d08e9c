"""The embedded Text2Layer and TCIG models do what they are shipped for, on scenes that training never showed."""

import pytest
from stagecraft.core.scores.metrics import mask_iou, mean_or_none
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.tcig import models as tcig_models
from stagecraft.evaluation.text2layer import evaluate as text2layer
from stagecraft.evaluation.text2layer import rows as text2layer_rows
from stagecraft.evaluation.text2layer.scores import likeness
from stagecraft.evaluation.text2layer.sets import held_out_prompts, layered_scenes


def test_layers_come_back_through_the_layered_autoencoder():
    scenes = layered_scenes(6, tuning=True)
    found = text2layer_rows.open_codec(text2layer_rows.SHIPPED).through(scenes)
    near = [likeness(each.layers, true) for each, true in zip(found, scenes, strict=True)]
    mean = {part: mean_or_none(getattr(each, part) for each in near) for part in vars(near[0])}
    assert mean["composite"] > text2layer.DECIBELS_TARGET and mean["background"] > text2layer.DECIBELS_TARGET
    assert mean["mask"] > text2layer.DECODED_MASK_TARGET
    assert mean["foreground"] > 20  # of small things with much detail; the stock autoencoder has 22 dB there


def test_a_prompt_becomes_a_thing_and_its_mask():
    yardsticks, painter = Yardsticks.load(), text2layer_rows.open_painter(text2layer_rows.SHIPPED)
    prompts = held_out_prompts(1, 4, tuning=True)
    found = painter.paint([prompt.prompt for prompt in prompts], [prompt.seed for prompt in prompts])
    overlaps = [mask_iou(each.layers.mask, yardsticks.labels(each.picture) > 0) for each in found]
    assert sum(overlaps) / len(overlaps) > 0.75


@pytest.mark.parametrize(("name", "least"), [("VQGAN", 24.0), ("animals", 0.7), ("things", 0.55)])
def test_the_models_of_drafts(measured, name, least):
    (value,) = (each["value"] for each in measured if each["name"].startswith(name))
    assert value > least


@pytest.fixture(scope="module")
def measured():
    return tcig_models.model_measures(scenes_wanted=24)
