"""Spatial Latent in the graph: what its reference shows, where runs start, what goes with it, and what is refused."""

import json
import os

import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicGuider, CFGGuider, SamplerCustomAdvanced
from PIL import Image
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.editing.edits import EditError, insert
from stagecraft.core.inversion.comfy.reference_picture import (
    DRAWINGS,
    DRAWN,
    GREY,
    WHITE,
    Drawing,
    later_seed,
    reference_seeds,
)
from stagecraft.core.inversion.comfy.spatial_latent import ODE, SDE, spatial_latent
from stagecraft.core.inversion.comfy.start import falling_levels
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.scores.layout_score import score_pictures
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.nodes.inversion.spatial_latent import ATTENTION, StageSpatialLatent
from stagecraft.nodes.layout.layout import StageLayout
from stagecraft.nodes.layout.sources import StageLayoutFromJSON
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE, SEGMENTER_FOLDER
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.families import build_family

STEPS, SIZE = 4, 64
TEXT = "a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1"
RED, GREEN, BLUE = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]


pytestmark = pytest.mark.usefixtures("no_gradients")


def a_layout(text=TEXT, background="on a green meadow"):
    return parse_layout(text, background=background, width=SIZE, height=SIZE)


def things(number=2, channels=3):
    """Pictures of things in one colour each, red then green, on white; with four channels cut out already."""
    masks = torch.zeros(number, 32, 40)
    masks[:, 6:26, 8:30] = 1
    colours = torch.eye(3)[[i % 3 for i in range(number)]].reshape(-1, 1, 1, 3)
    pictures = torch.where(masks[..., None] > 0, colours, torch.ones(3))
    return (torch.cat([pictures, masks[..., None]], -1) if channels == 4 else pictures), masks


def started(model, clip, vae, layout=None, *, cut_out=ATTENTION, **given):
    """The node's outputs: model, latent, noise, reference."""
    settings = {
        "start": ODE, "steps": STEPS, "scheduler": "normal", "method": "euler", "refinements": 0,
        "inversion_prompt": "{prompt}", "forward_noise_first_k": 0, "renormalise": False, "background": GREY,
        "object_prompt": "a photo of {phrase}", "draw_steps": 2, "draw_cfg": 2.0, "seed": 3, "batch_size": 1,
    }  # fmt: skip
    layout = a_layout() if layout is None else layout
    return StageSpatialLatent.execute(model, clip, vae=vae, layout=layout, cut_out=cut_out, **settings | given).args


def given_things(**more):
    images, masks = things()
    return {"images": images, "masks": masks} | more


def watched(model, noises):
    """The model, of which every run adds its noise to a list."""

    def keep(executor, noise, *args, **kwargs):
        noises.append(noise.clone())
        return executor(noise, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "test", keep)
    return model


def mean_colour(reference, box):
    x0, y0, x1, y1 = (round(value * SIZE) for value in box)
    return reference[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean((0, 1))


# --- the reference ---


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


@pytest.mark.parametrize(("node", "key"), [(StageLayout, "layout"), (StageLayoutFromJSON, "json")])
def test_a_changed_picture_is_read_again(input_folder, node, key):
    """Through the node whose text names it: what hangs on that one runs again with it."""
    text = json.dumps(with_reference("cat.png").to_dict())
    before = node.fingerprint_inputs(**{key: text}, prompt="")
    os.utime(input_folder / "cat.png", ns=(1, 1))
    after = node.fingerprint_inputs(**{key: text}, prompt="")
    assert before != after == (1,)
    for nothing in (None, "", "{", "[3]", TEXT, '{"regions": 3}', text.replace("cat.png", "../cat.png")):
        assert node.fingerprint_inputs(**{key: nothing}) == ()


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


# --- where runs start ---


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_all_ways_to_start_give_the_same_picture(make_model, clip, vae, kind):
    model = make_model(kind)
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    positive, negative = encode(clip, "a dog and a cat"), encode(clip, "")
    euler, sigmas = comfy.samplers.sampler_object("euler"), falling_levels(model, "normal", 6)

    def custom(patched, seed_noise):
        guider = CFGGuider.execute(patched, positive, negative, 2.0).args[0]
        empty = {"samples": torch.zeros_like(latent["samples"])}
        return SamplerCustomAdvanced.execute(seed_noise, guider, euler, sigmas, empty).args[0]["samples"]

    expected = custom(model, noise)
    size = expected.std().item()
    torch.testing.assert_close(custom(ours, noise), expected, atol=0, rtol=0)
    by_latent = comfy.sample.sample(
        ours, torch.zeros_like(expected), 6, 2.0, "euler", "normal", positive, negative, latent["samples"],
        disable_noise=True, disable_pbar=True,
    )  # fmt: skip
    torch.testing.assert_close(by_latent, expected, atol=1e-3 * size, rtol=1e-3)


def test_a_sampler_that_adds_noise_may_follow(model, clip, vae):
    ours, _, noise, _ = started(model, clip, vae, **given_things())
    guider = BasicGuider.execute(ours, encode(clip, "a dog")).args[0]
    sigmas, ancestral = falling_levels(model, "normal", 3), comfy.samplers.sampler_object("euler_ancestral")
    found = SamplerCustomAdvanced.execute(noise, guider, ancestral, sigmas, {"samples": torch.zeros(1, 4, 8, 8)})
    assert torch.isfinite(found.args[0]["samples"]).all()


def test_the_sde_start_is_plain_noising(model, clip, vae):
    _, latent, _, reference = started(model, clip, vae, **given_things(start=SDE, seed=9))
    clean = vae.encode(reference)
    sigma = falling_levels(model, "normal", STEPS)[0]
    expected = clean * 0.18215 + (1 + sigma**2) ** 0.5 * comfy.sample.prepare_noise(clean, 9)
    torch.testing.assert_close(latent["samples"] * 0.18215, expected, atol=1e-3, rtol=1e-3)
    assert len(rising_sigmas(falling_levels(model, "normal", STEPS))) == STEPS + 1


@pytest.mark.parametrize("seed", [3, 2**64 - 1])
def test_the_noise_of_a_start_is_in_none_of_its_drawings(model, clip, vae, seed):
    noises = []
    started(watched(model, noises), clip, vae, start=SDE, seed=seed, background=DRAWN)
    *before, start = noises
    assert torch.equal(start, comfy.sample.prepare_noise(start, seed))
    assert len(before) == 5 and not any(torch.equal(each, start) for each in before)
    layouts = [a_layout(), a_layout("a fox: 0 0 1 1"), a_layout()]
    seeds = [later_seed(first, n) for first in reference_seeds(seed, layouts) for n in range(2 * DRAWINGS + 1)]
    assert len({seed, *seeds}) == len(seeds) + 1 and all(0 <= each < 2**64 for each in seeds)


# --- with the pack's other methods ---


def layered(model, clip, positive, negative):
    return render_in_layers(model, clip, None, a_layout(), positive, negative, Rendering(0.5, 0.0))


def guided(model, clip, positive, negative):
    return guide_attention(model, clip, a_layout(), strength=0.1, end=0.5), positive, negative


@pytest.mark.parametrize("method", [layered, guided])
def test_other_methods_take_the_start(model, clip, vae, method):
    """From the start's noise, given as numbers, they paint the same."""
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    empty, settings = torch.zeros_like(latent["samples"]), {"disable_pbar": True, "seed": 0}
    prompts = encode(clip, a_layout().prompt), encode(clip, "")

    def run(prepared, noise, latent):
        patched, *prompts = prepared
        return comfy.sample.sample(patched, noise, 4, 2.0, "euler", "normal", *prompts, latent, **settings)

    expected = run(method(model, clip, *prompts), noise.generate_noise({"samples": empty}), empty)
    found = run(method(ours, clip, *prompts), torch.zeros_like(empty), latent["samples"])
    torch.testing.assert_close(found, expected, atol=1e-3 * expected.std().item(), rtol=1e-3)
    plain = run((model, *prompts), noise.generate_noise({"samples": empty}), empty)
    assert not torch.allclose(plain, expected, atol=1e-3 * expected.std().item())


def test_an_edit_takes_the_noise_but_not_the_latent(model, clip, vae):
    """An edit samples the latent of its own picture; a start without noise would put another one in its place."""
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    prompts = encode(clip, "a dog"), encode(clip, "")
    edited, positive, negative, own, mask = edit_picture(
        ours, clip, vae, picture, [insert(a_layout().regions[0])], *prompts, Editing(0.5, 0.0)
    )
    settings = {"disable_pbar": True, "seed": 0}
    numbers = noise.generate_noise({"samples": own})
    found = comfy.sample.sample(edited, numbers, 4, 2.0, "euler", "normal", positive, negative, own, **settings)
    cells = mask.reshape(1, 1, 8, 8, 8, 8).mean((3, 5)).expand_as(found)
    torch.testing.assert_close(found[cells == 0], own[cells == 0])
    assert not torch.allclose(found[cells == 1], own[cells == 1], atol=1e-2)
    with pytest.raises(EditError, match="The run adds no noise, but an edit needs it"):
        comfy.sample.sample(
            edited, torch.zeros_like(own), 4, 2.0, "euler", "normal", positive, negative, latent["samples"], **settings
        )


# --- the embedded checkpoint ---


def test_things_of_the_embedded_checkpoint_lie_in_their_boxes():
    """What is drawn, cut out and pasted is found in its place by the segmenter, and the start carries that on."""
    register_model_class()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE))
    segmenter = Segmenter.load(SEGMENTER_FOLDER)
    layout = parse_layout("a dog: 0.05 0.1 0.45 0.6", background="on a green meadow", width=256, height=256)
    start, references = spatial_latent(
        model, clip, vae, [layout], Drawing("a photo of {phrase}", DRAWN, 8, 5.0, "normal", segmenter), start=ODE,
        steps=10, scheduler="normal", method="euler", refinements=0, inversion_prompt="{prompt}",
        forward_noise_first_k=0, renormalise=False, seed=1,
    )  # fmt: skip
    ((score,),) = score_pictures(references, [layout], segmenter)
    assert score.box_iou > 0.85
    empty = torch.zeros_like(start.state)
    samples = comfy.sample.sample(
        model, start.noise(empty), 10, 3.0, "euler", "normal", encode(clip, layout.prompt), encode(clip, ""), empty,
        seed=0, disable_pbar=True,
    )  # fmt: skip
    ((score,),) = score_pictures(vae.decode(samples), [layout], segmenter)
    assert score.box_iou > 0.5


# --- what is refused ---


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
    with pytest.raises(SegmenterError, match=r'no cut-out picture of "a spaceship of glass", and .* attention map'):
        spatial_latent(
            model, clip, vae, [layout], drawing, start=ODE, steps=2, scheduler="normal", method="euler", refinements=0,
            inversion_prompt="", forward_noise_first_k=0, renormalise=False, seed=0,
        )  # fmt: skip


def test_a_thing_that_is_not_in_its_picture_is_refused(model, clip, vae):
    with pytest.raises(ValueError, match='does not find "a dog" in its picture. To cut it out .* images and masks'):
        spatial_latent(
            model, clip, vae, [a_layout()], Drawing("", GREY, 2, 5.0, "normal", Segmenter.load(SEGMENTER_FOLDER)),
            start=ODE, steps=2, scheduler="normal", method="euler", refinements=0, inversion_prompt="",
            forward_noise_first_k=0, renormalise=False, seed=0, images=torch.full((2, 64, 64, 3), 0.5),
        )  # fmt: skip


@pytest.mark.parametrize("name", ["SD3", "Flux"])
def test_attention_cuts_out_only_with_a_unet(name):
    """Before anything is drawn; what is cut out already goes with every model."""
    family, runs = build_family(name), []
    with pytest.raises(
        ValueError, match='cut_out is "attention map", .* Let cut_out be .* or connect images and masks'
    ):
        started(watched(family.model, runs), family.clip, family.vae)
    assert not runs
    start = started(family.model, family.clip, family.vae, **given_things(start=SDE))[1]
    assert torch.isfinite(start["samples"]).all()


def test_a_vae_of_another_model_is_refused(model, clip, vae):
    class Other:
        latent_channels = 16

    with pytest.raises(ValueError, match="VAE has 16 latent channels, but the model has 4"):
        started(model, clip, Other(), **given_things())
