"""What is measured of the embedded transformer, on models whose answers are known."""

import numpy as np
import torch
from stagecraft.sticker_world.checkpoint.probe import familiar_scenes
from stagecraft.sticker_world.checkpoint.transformer import Size
from stagecraft.sticker_world.checkpoint.transformer_probe import errors, knowledge, masks_of, paint
from stagecraft.sticker_world.checkpoint.transformer_training import TaughtTransformer
from stagecraft.sticker_world.world.concepts import BACKGROUND_NAMES, CONCEPT_NAMES
from stagecraft.sticker_world.world.vocabulary import vocabulary

TINY = Size(width=24, heads=2, axes=(4, 4, 4), double=3, single=2)


def test_a_model_that_knows_the_picture_paints_it_without_error():
    torch.manual_seed(0)
    picture = torch.randn(2, 4, 32, 32)

    def velocity(x, t, rows):
        return (x - picture.repeat(len(x) // 2, 1, 1, 1)) / t[:, None, None, None]

    torch.testing.assert_close(paint(velocity, ("a dog", "a cat"), steps=5), picture, rtol=1e-4, atol=1e-4)
    assert max(errors(velocity, picture, vocabulary().encode(["a dog", "a cat"])).values()) < 1e-6
    shifted = errors(lambda x, t, rows: velocity(x, t, rows) + 1, picture, vocabulary().encode(["a dog", "a cat"]))
    assert all(abs(error - 1) < 1e-3 for error in shifted.values())


def test_masks_are_the_visible_shares():
    scenes = familiar_scenes(4)
    masks, concepts = masks_of(scenes)
    for scene, mask, names in zip(scenes, masks, concepts, strict=True):
        assert [CONCEPT_NAMES[i] for i in names if i >= 0] == [thing.concept for thing in scene.objects]
        for thing, share in zip(scene.objects, mask, strict=False):
            assert np.isclose(share.mean(), thing.visible.mean(), atol=1e-4)


def test_a_model_that_says_one_place_everywhere_knows_that_places_tokens():
    scenes = familiar_scenes(4)
    torch.manual_seed(0)
    model = TaughtTransformer(TINY).requires_grad_(False)
    place = BACKGROUND_NAMES.index(scenes[0].background)
    torch.nn.init.zeros_(model.classes.weight)
    model.classes.bias.copy_(torch.nn.functional.one_hot(torch.tensor(len(CONCEPT_NAMES) + place), 36))
    rows = vocabulary().encode([scene.caption for scene in scenes])
    hits, shares = knowledge(model, torch.randn(4, 4, 32, 32), rows, scenes)
    masks, _ = masks_of(scenes)
    beside = 1 - masks.sum(1, keepdim=True)
    expected = [
        float((beside[i] > masks[i].amax(0)).float().mean()) if scene.background == scenes[0].background else 0.0
        for i, scene in enumerate(scenes)
    ]
    assert abs(hits - np.mean(expected)) < 1e-2
    assert len(shares) == 4 and all(0 < share < 0.5 for share in shares)
