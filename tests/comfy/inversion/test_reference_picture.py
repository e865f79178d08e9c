"""What the reference picture of a Spatial Latent shows: given things, drawn things, backgrounds; what is refused."""

import json
import os

import folder_paths
import pytest
import torch
from PIL import Image
from stagecraft.core.inversion.comfy.cut_out_things import Checkpoint
from stagecraft.core.inversion.comfy.reference_picture import (
    DRAWN,
    GREY,
    WHITE,
    Drawing,
    GivenPictures,
)
from stagecraft.core.inversion.comfy.spatial_latent import ODE, SDE, spatial_latent
from stagecraft.core.inversion.comfy.start import Inversion
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.nodes.layout.canvas import StageLayoutCanvas
from stagecraft.nodes.layout.layout import StageLayout
from stagecraft.sticker_world.shipped import SEGMENTER_FOLDER
from stagecraft.tests.comfy.families import build_family
from stagecraft.tests.comfy.inversion.spatial import (
    BLUE,
    GREEN,
    RED,
    SIZE,
    TEXT,
    a_layout,
    given_things,
    mean_colour,
    started,
    things,
    watched,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def assert_colours(reference, dog, cat):
    """Of the boxes of `TEXT`."""
    for box, colour in (((0, 0, 0.5, 0.5), dog), ((0.5, 0.25, 1, 1), cat)):
        torch.testing.assert_close(mean_colour(reference[0], box), torch.tensor(colour), atol=0.01, rtol=0)


@pytest.mark.parametrize("how", ["masks", "alpha"])
def test_given_things_are_pasted_in_painters_order(model, clip, vae, how):
    given = given_things() if how == "masks" else {"images": things(channels=4)[0]}
    reference = started(model, clip, vae, **given)[3]
    assert reference.shape == (1, SIZE, SIZE, 3)
    assert_colours(reference, dog=RED, cat=GREEN)
    layout = a_layout("a dog: 0 0 0.5 0.5 | order=1\na cat: 0.5 0.25 1 1")  # the cat is farther, so it comes first
    assert_colours(started(model, clip, vae, layout, **given)[3], dog=GREEN, cat=RED)
    with pytest.raises(ValueError, match='Mask 1, of "a cat", is empty'):
        started(model, clip, vae, layout, images=things()[0], masks=torch.zeros(2, 32, 40))


@pytest.fixture
def input_folder(tmp_path):
    """ComfyUI's input folder with one picture: a blue thing cut out of red."""
    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(tmp_path))
    picture = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (10, 5, 30, 25))
    picture.save(tmp_path / "cat.png")
    yield tmp_path
    folder_paths.set_input_directory(before)


def with_reference(name):
    """The layout of `TEXT` whose cat has a reference picture."""
    dog, cat = Region("a dog", box=(0, 0, 0.5, 0.5)), Region("a cat", box=(0.5, 0.25, 1, 1), reference=name)
    return Layout(SIZE, SIZE, "", "", (dog, cat))


def test_a_regions_own_picture_counts_before_images_and_drawings(model, clip, vae, input_folder):
    layout = with_reference("cat.png")
    assert_colours(started(model, clip, vae, layout, **given_things())[3], dog=RED, cat=BLUE)
    runs = []
    reference = started(watched(model, runs), clip, vae, layout, start=SDE)[3]
    torch.testing.assert_close(mean_colour(reference[0], (0.5, 0.25, 1, 1)), torch.tensor(BLUE), atol=0.01, rtol=0)
    assert len(runs) == 3  # the dog, its attention, and the start
    runs.clear()
    Image.open(input_folder / "cat.png").convert("RGB").save(input_folder / "opaque.png")
    cut_by_attention = started(watched(model, runs), clip, vae, with_reference("opaque.png"), **given_things())[3]
    assert len(runs) == 2 and mean_colour(cut_by_attention[0], (0.5, 0.25, 1, 1))[1] < 0.1  # no green


def test_a_missing_or_empty_picture_of_a_region_is_refused(model, clip, vae, input_folder):
    with pytest.raises(LayoutError, match='"a cat" has the reference picture "dog.png", which is not in ComfyUI'):
        started(model, clip, vae, with_reference("dog.png"))
    (input_folder / "dog.png").write_bytes(b"no picture")
    with pytest.raises(LayoutError, match="cannot be opened"):
        started(model, clip, vae, [a_layout(), with_reference("dog.png")])
    Image.new("RGBA", (8, 8)).save(input_folder / "dog.png")
    with pytest.raises(ValueError, match='reference picture of "a cat" is transparent everywhere'):
        started(model, clip, vae, with_reference("dog.png"), **given_things())


@pytest.mark.parametrize("node", [StageLayout, StageLayoutCanvas])
def test_a_changed_picture_is_read_again(input_folder, node):
    """Through the node whose text names it: what hangs on that one runs again with it."""
    text = json.dumps(with_reference("cat.png").to_dict())
    before = node.fingerprint_inputs(layout=text, prompt="")
    os.utime(input_folder / "cat.png", ns=(1, 1))
    after = node.fingerprint_inputs(layout=text, prompt="")
    assert before != after == (1,)
    for nothing in (None, "", "{", "[3]", TEXT, '{"regions": 3}', text.replace("cat.png", "../cat.png")):
        assert node.fingerprint_inputs(layout=nothing) == ()


@pytest.mark.parametrize("background", [WHITE, GREY, DRAWN, "given"])
def test_backgrounds(model, clip, vae, background):
    more = {"background": background} if background != "given" else {"background_image": torch.full((1, 9, 7, 3), 0.25)}
    reference = started(model, clip, vae, **given_things(**more))[3][0]
    outside = reference[SIZE // 2 + 2 :, : SIZE // 2 - 2]
    if background in (WHITE, "given"):
        assert torch.equal(outside, torch.full_like(outside, 1.0 if background == WHITE else 0.25))
    else:
        assert 0.01 < outside.std() and outside.mean() < 0.95
    if background == DRAWN:  # nothing to draw without a prompt for it
        bare = started(model, clip, vae, a_layout(background=""), **given_things(background=DRAWN))[3][0]
        grey = started(model, clip, vae, a_layout(background=""), **given_things(background=GREY))[3][0]
        assert torch.equal(bare, grey) and not torch.equal(bare, reference)


def test_the_checkpoint_draws_and_its_attention_cuts_out(model, clip, vae):
    first, again, other = (started(model, clip, vae, seed=seed)[3][0] for seed in (3, 3, 4))
    bare = started(model, clip, vae, a_layout("a dog: 0 0 0.5 0.5 | strength=0\na cat: 0.5 0.25 1 1"))[3][0]
    assert torch.equal(first, again) and not torch.equal(first, other)
    differs = (first != bare).any(-1)
    assert differs[: SIZE // 2, : SIZE // 2].any() and not differs[SIZE // 2 :, : SIZE // 2].any()


def test_every_picture_of_a_batch_has_drawings_of_its_own(model, clip, vae):
    _, latent, noise, references = started(model, clip, vae, batch_size=2)
    assert references.shape[0] == len(latent["samples"]) == 2
    assert not torch.equal(references[0], references[1])
    alone = started(model, clip, vae)
    torch.testing.assert_close(references[:1], alone[3])
    torch.testing.assert_close(latent["samples"][:1], alone[1]["samples"], atol=1e-2, rtol=1e-3)
    layouts = [a_layout(), a_layout("a fox: 0 0 1 1")]
    batch = started(model, clip, vae, layouts, inversion_prompt="{phrases}", batch_size=5)
    assert len(batch[1]["samples"]) == len(batch[3]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": things(1)[0]}, "1 images are connected for 2 regions. Connect a batch with one for each region"),
        ({"images": things()[0], "masks": things(3)[1]}, "3 masks are connected for 2 regions"),
        ({"masks": things()[1]}, "Masks are connected without images"),
        ({"images": things()[0], "masks": 0 * things()[1]}, 'Mask 1, of "a dog", is empty'),
        ({"images": things()[0], "masks": things()[1][:, 1:]}, r'mask of "a dog" is 40 x 31 pixels, but .* 40 x 32'),
        ({"images": 0 * things(channels=4)[0]}, 'The image of "a dog" is transparent everywhere'),
        (given_things(forward_noise_first_k=9), "forward_noise_first_k is 9, but the schedule has 4 steps"),
        (given_things(steps=1001, scheduler="simple"), '"simple" has no 1001 different noise levels'),
        (given_things(inversion_prompt="{phrase}"), r"inversion prompt has the placeholder \{phrase\}"),
        ({"object_prompt": "{thing}"}, r"object prompt has the placeholder \{thing\}"),
    ],
)
def test_what_does_not_go_together_is_refused(model, clip, vae, given, message):
    with pytest.raises(ValueError, match=message):
        started(model, clip, vae, **given)


def test_layouts_of_different_canvases_are_refused(model, clip, vae):
    other = parse_layout("a dog: 0 0 1 1", width=128, height=SIZE)
    with pytest.raises(ValueError, match="different canvases"):
        started(model, clip, vae, [a_layout(), other])


def test_a_phrase_that_the_segmenter_does_not_know_is_refused_before_anything_is_drawn(model, clip, vae):
    layout = a_layout("a spaceship of glass: 0 0 1 1")
    segmenter = Segmenter.load(SEGMENTER_FOLDER)
    drawing = Drawing("{phrase}", GREY, 10**6, 5.0, "normal", segmenter)
    with pytest.raises(SegmenterError, match=r'no cut-out picture of "a spaceship of glass", and .* own attention'):
        spatial_latent(
            Checkpoint(model, clip, vae), [layout], drawing, Inversion(), start=ODE, steps=2, inversion_prompt=""
        )


def test_a_thing_that_is_not_in_its_picture_is_refused(model, clip, vae):
    with pytest.raises(ValueError, match='does not find "a dog" in its picture. To cut it out .* images and masks'):
        spatial_latent(
            Checkpoint(model, clip, vae),
            [a_layout()],
            Drawing("", GREY, 2, 5.0, "normal", Segmenter.load(SEGMENTER_FOLDER)),
            Inversion(),
            start=ODE,
            steps=2,
            inversion_prompt="",
            given=GivenPictures(torch.full((2, 64, 64, 3), 0.5)),
        )


@pytest.mark.parametrize("name", ["SD3", "Flux"])
def test_a_transformers_attention_cuts_out_too(name):
    family, runs = build_family(name), []
    start = started(watched(family.model, runs), family.clip, family.vae, draw_steps=1)[1]
    assert torch.isfinite(start["samples"]).all()
    assert runs


def test_a_network_whose_attention_nobody_knows_is_refused_before_anything_is_drawn():
    """What is cut out already goes with every model."""
    family, runs = build_family("SD3"), []
    unknown = type("Unknown", (type(family.model.model.diffusion_model),), {})
    family.model.model.diffusion_model.__class__ = unknown
    with pytest.raises(ValueError, match="Attention maps: .* Unknown, .* Connect a segmenter .* or connect images and"):
        started(watched(family.model, runs), family.clip, family.vae)
    assert not runs
    start = started(family.model, family.clip, family.vae, **given_things(start=SDE))[1]
    assert torch.isfinite(start["samples"]).all()


def test_a_vae_of_another_model_is_refused(model, clip, vae):
    class Other:
        latent_channels = 16

    with pytest.raises(ValueError, match="VAE has 16 latent channels, but the model has 4"):
        started(model, clip, Other(), **given_things())
