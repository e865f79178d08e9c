"""A layout for each picture of a batch."""

import pytest
import torch
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.layered_rendering.small_runs import APART, AUTO, DYNAMIC, T0, assert_same_picture, sample

pytestmark = pytest.mark.usefixtures("no_gradients")


FOUR = (
    "a dog: 0 0 0.5 1 | colour=red",
    "a cat: 0.5 0 1 0.5 | colour=blue\na tree: 0 0.5 0.5 1",
    "a dog: 0.25 0.25 0.75 0.75 | a large grey dog",
    "a bus: 0 0 1 0.25 | colour=yellow\na cat: 0 0.5 0.25 1\na dog: 0.5 0.5 1 1 | colour=brown",
)


MORE = [
    {},
    APART,
    {"guidance": DYNAMIC},
    {"guidance": AUTO},
    APART | {"guidance": AUTO},
    {"background_negative": "{phrases}"},
]


@pytest.mark.parametrize("more", MORE, ids=str)
def test_a_batch_of_layouts_is_its_layouts_one_by_one(model, clip, vae, prompts, more):
    layouts = [parse_layout(text, width=64, height=64, background=f"place {i}") for i, text in enumerate(FOUR)]
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def render(which):
        return render_in_layers(model, clip, vae, which, *prompts, Rendering(T0, 1.0, **more))

    together, *together_prompts = render(layouts)
    found = sample(together, together_prompts, batch=4, noise=noise)
    for i, layout in enumerate(layouts):
        single, *single_prompts = render(layout)
        assert_same_picture(found[i : i + 1], sample(single, single_prompts, noise=noise[i : i + 1]))


def test_a_batch_of_layouts_that_cannot_be(model, clip, vae, prompts):
    layouts = [parse_layout("a dog: 0 0 0.5 1", width=64, height=height) for height in (64, 128)]
    rendering = Rendering(T0, 1.0)
    with pytest.raises(ValueError, match="different canvases"):
        render_in_layers(model, clip, vae, layouts, *prompts, rendering)
    ours, *our_prompts = render_in_layers(model, clip, vae, layouts[:1] * 2, *prompts, rendering)
    with pytest.raises(ValueError, match="2 layouts for a batch of 3 pictures"):
        sample(ours, our_prompts, batch=3)
