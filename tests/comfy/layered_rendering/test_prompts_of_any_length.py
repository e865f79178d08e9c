"""A batch of layouts whose prompts have different lengths, on a transformer that pads nothing.

There text is a part of the state, so that a repeated prompt is another prompt.
"""

import comfy.sample
import pytest
import torch
from stagecraft.core.comfy.captions import rows_of_one_length
from stagecraft.core.layered_rendering.comfy.make_layers import make_layers
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.families import CELL, FixedText, build_family
from stagecraft.tests.comfy.inversion.spatial import given_things, started
from stagecraft.tests.comfy.layered_rendering.small_runs import assert_same_picture

pytestmark = pytest.mark.usefixtures("no_gradients")

SIDE = 8  # cells
LAYOUTS = [
    ("a dog: 0 0 0.5 1 | colour=red", "on a wide green meadow"),
    ("a small dog: 0.5 0 1 0.5 | colour=blue\na tree: 0 0.5 0.5 1", "in the snow"),
    ("a dog: 0.25 0.25 0.75 0.75\na very old cat: 0 0 0.25 1", "in the rain"),
]


@pytest.fixture(scope="module")
def qwen():
    return build_family("QwenImage")


def layouts():
    side = CELL * SIDE
    return [parse_layout(text, width=side, height=side, background=place) for text, place in LAYOUTS]


@pytest.mark.parametrize(
    "more",
    [{}, {"crop": 1}, {"mode": "trajectories"}, {"background_negative": "{phrases}"}, {"layer_prompt": "{phrase}"}],
    ids=str,
)
def test_a_batch_of_layouts_is_its_layouts_one_by_one(qwen, more):
    noise = torch.randn(3, *qwen.latent(SIDE, SIDE).shape[1:], generator=torch.Generator().manual_seed(0))
    plain = [qwen.clip.encode_from_tokens_scheduled(text.split()) for text in ("a photo", "")]

    def picture(which, noise):
        model, *prompts = render_in_layers(qwen.model, qwen.clip, qwen.vae, which, *plain, Rendering(0.5, 1.0, **more))
        latent = torch.zeros_like(noise)
        how = 4, 2.0, "euler", "simple"
        return comfy.sample.sample(model, noise, *how, *prompts, latent, seed=7, disable_pbar=True)

    found = picture(layouts(), noise)
    for i, layout in enumerate(layouts()):
        assert_same_picture(found[i : i + 1], picture(layout, noise[i : i + 1]))


def test_u_nets_evaluate_each_place_once(model, clip, vae):
    made = make_layers(model, clip, vae, layouts(), Rendering(0.5, 1.0))
    assert len(made) == 3, "the background and two places in painter's order"


def test_pictures_of_one_length_share_an_evaluation(qwen):
    made = make_layers(qwen.model, qwen.clip, qwen.vae, layouts(), Rendering(0.5, 1.0, layer_prompt="{phrase}"))
    assert [bool(layer.is_background) for layer in made] == [True, True, False, False, False, False]
    total = torch.stack([layer.visible for layer in made]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_captions_are_told_apart_by_their_lengths():
    clip = FixedText(None)
    captions = ["a dog", "a cat", "a small dog", "a bus"]
    assert rows_of_one_length(clip, captions) == [[0, 1, 3], [2]]
    assert rows_of_one_length(clip, captions, ["", "no", "", ""]) == [[0, 3], [1], [2]]


def test_start_latents_of_a_batch_are_those_of_its_layouts_one_by_one(qwen):
    given = given_things(inversion_prompt="{phrases} {background}", background_image=torch.full((1, 9, 7, 3), 0.25))
    inputs = qwen.model, qwen.clip, qwen.vae
    batch = [parse_layout(text, width=64, height=64, background=place) for text, place in LAYOUTS[1:]]
    together = started(*inputs, batch, batch_size=len(batch), **given)[1]["samples"]
    for i, layout in enumerate(batch):
        assert_same_picture(together[i : i + 1], started(*inputs, layout, **given)[1]["samples"])
