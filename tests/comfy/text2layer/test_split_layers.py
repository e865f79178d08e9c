"""Split Layers on real ComfyUI models: against stock nodes, what stays as it is, what is saved, what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import folder_paths
import pytest
import torch
from stagecraft.core.comfy.sampling import Sampling
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.layers.layered_image import from_layers
from stagecraft.core.text2layer.comfy.splitting import fill_background, save_split
from stagecraft.core.text2layer.splitting import (
    THRESHOLD,
    SplitError,
    cut_foreground,
    hole_to_fill,
    join_background,
    without_object,
)
from stagecraft.nodes.text2layer.split_layers import ALL, GOOD, StageSplitLayers
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.text2layer.layer_folder import open_layer_folder
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.tests.comfy.conftest import UNET, SmallSD, encode
from stagecraft.tests.comfy.families import FAMILIES, build_family, fill

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")
RUN = Sampling(seed=5, steps=3, cfg=2.0, sampler="euler", scheduler="normal")
DILATION = 8


def picture(batch=1, height=64, width=96):
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(5))


def box(height=64, width=96):
    """A mask of whole latent cells, so that stock nodes see the same hole."""
    mask = torch.zeros(1, height, width)
    mask[:, 24:40, 32:56] = 1
    return mask


@pytest.fixture
def empty(clip):
    return encode(clip, "")


@pytest.fixture
def inpainting_model():
    """SD 1.5's inpainting layout: 9 channels in, mask and masked picture as conditions."""
    config = SmallSD({**UNET, "in_channels": 9, "out_channels": 4, "transformer_depth_output": [1, 1, 0, 0]})
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
    model.set_inpaint()
    fill(model.diffusion_model, 1)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def test_it_is_what_stock_nodes_make(model, vae, clip, empty):
    """Set Latent Noise Mask and KSampler on the picture with its hole smoothed over, then joined."""
    image, mask, negative = picture(2), box().expand(2, -1, -1), encode(clip, "a dog")
    hole = hole_to_fill(mask, DILATION)
    latent = {"samples": vae.encode(without_object(image, hole)), "noise_mask": (hole > 0).float()}
    settings = (RUN.seed, RUN.steps, RUN.cfg, RUN.sampler, RUN.scheduler)
    (sampled,) = comfy_nodes.common_ksampler(model, *settings, empty, negative, latent)
    expected = join_background(image, vae.decode(sampled["samples"]), hole)
    found = fill_background(model, vae, empty, negative, image, mask, dilation=DILATION, sampling=RUN)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(found[hole == 0], image[hole == 0])
    assert (found - image)[hole == 1].abs().mean() > 0.05


def test_an_inpainting_checkpoint_gets_its_mask_and_masked_picture(inpainting_model, vae, empty):
    image, mask = picture(), box()
    hole = hole_to_fill(mask, DILATION)
    positive, negative, latent = comfy_nodes.InpaintModelConditioning().encode(
        empty, empty, image, vae, (hole > 0).float()
    )
    latent["samples"] = vae.encode(without_object(image, hole))
    settings = (RUN.seed, RUN.steps, 1.0, RUN.sampler, RUN.scheduler)
    (sampled,) = comfy_nodes.common_ksampler(inpainting_model, *settings, positive, negative, latent)
    expected = join_background(image, vae.decode(sampled["samples"]), hole)
    found = fill_background(inpainting_model, vae, empty, None, image, mask, dilation=DILATION, sampling=RUN)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_without_a_negative_prompt_cfg_does_nothing_and_the_prompt_stays_as_it_was(model, vae, empty):
    keys = set(empty[0][1])
    found = [
        fill_background(model, vae, empty, None, picture(), box(), dilation=DILATION, sampling=replace(RUN, cfg=cfg))
        for cfg in (1.0, 7.0)
    ]
    assert torch.equal(*found) and set(empty[0][1]) == keys


def test_pictures_of_any_size_keep_it(model, vae, empty):
    image, mask = picture(1, 61, 83), box(61, 83)
    hole = hole_to_fill(mask, DILATION)
    found = fill_background(model, vae, empty, None, image, mask, dilation=DILATION, sampling=RUN)
    assert found.shape == image.shape and torch.isfinite(found).all()
    assert torch.equal(found[hole == 0], image[hole == 0])


def test_nothing_of_the_object_reaches_the_background(model, vae, empty):
    """Another object under the same mask, rim included, leaves the same background bit for bit."""
    image, mask = picture(), box()
    hole = hole_to_fill(mask, DILATION)
    other = torch.where(hole[..., None] > 0, 1 - image, image)
    # Inside the rim both fade into their own pictures; where the hole is whole, nothing may differ.
    found = [
        fill_background(model, vae, empty, None, each, mask, dilation=DILATION, sampling=RUN)[hole == 1]
        for each in (image, other)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", FAMILIES)
def test_on_every_family_pictures_and_videos(name):
    family = build_family(name)
    text = encode(family.clip, "")
    image, mask = picture(2), box().expand(2, -1, -1)
    hole = hole_to_fill(mask, DILATION)
    found = fill_background(family.model, family.vae, text, None, image, mask, dilation=DILATION, sampling=RUN)
    assert found.shape == image.shape and torch.isfinite(found).all()
    assert torch.equal(found[hole == 0], image[hole == 0]) and (hole == 0).any()
    assert (found - image)[hole == 1].abs().max() > 0


def test_a_run_can_be_cancelled(model, vae, empty):
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        fill_background(model, vae, empty, None, picture(), box(), dilation=DILATION, sampling=RUN)


# --- the node ---


@pytest.fixture
def output(tmp_path, monkeypatch):
    """ComfyUI's output and temporary folders of a test's own, and the node as the executor calls it."""
    for name in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    hidden = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)
    monkeypatch.setattr(StageSplitLayers, "hidden", hidden, raising=False)
    return tmp_path / "output"


@pytest.fixture(scope="module")
def scenes():
    """Two pictures with one thing, their backdrops and masks."""
    found = [make_scene(612, index, counts=(0, 1.0)) for index in range(2)]
    pictures, backdrops = (
        torch.stack([torch.from_numpy(each.copy()) for each in some]).float() / 255
        for some in ([scene.image for scene in found], [scene.backdrop for scene in found])
    )
    return pictures, backdrops, torch.stack([torch.from_numpy(scene.objects[0].mask) for scene in found])


def split(image, mask, **given):
    defaults = {
        "dilation": 12,
        "seed": 5,
        "steps": 3,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "tries": 1,
        "clean_edges": True,
        "folder": "",
        "save": GOOD,
        "captions": "",
    }
    return StageSplitLayers.execute(image, mask, **{**defaults, **given})


def test_a_finished_background_gives_layers_that_compose_the_picture_again(scenes, output):
    image, backdrop, mask = scenes
    front, behind, found, layers, text, good = split(image, mask, background=backdrop).args
    assert torch.equal(behind, backdrop) and good and "picture 2: good" in text
    again = torch.cat([from_layers(stack).composite() for stack in layers])
    error, seen = (again - image).abs().amax(-1), found > 0
    assert error[seen].max() < 0.012  # the drawn picture's rounding, up to a tenth of it in the quotient
    assert error[~seen].max() <= THRESHOLD  # what is fainter is background
    copied = split(image, mask, background=backdrop, clean_edges=False).args[0]
    assert torch.equal(copied, cut_foreground(image, found)) and (copied - front).abs().max() > 0.1
    assert not output.exists()


def test_good_pictures_are_saved_as_training_reads_them(scenes, output):
    image, backdrop, mask = scenes
    spoiled = torch.stack([backdrop[0], image[1]])
    given = {"background": spoiled, "folder": "my set", "captions": "a thing\nanother thing"}
    shown = split(image, mask, **given)
    assert not shown.args[5] and "saved 1 of 2 as 000001 to 000001 in my set" in shown.args[4]
    split(image, mask, **given, save=ALL)
    folder = open_layer_folder(output / "my set", 256)
    assert len(folder) == 3 and folder.folder.captions(range(3)) == ["a thing", "a thing", "another thing"]
    read = folder.layers(range(3))
    front, behind, masks, *_ = split(image, mask, **given).args
    for row, index in enumerate((0, 0, 1)):
        expected = torch.cat([front[index].movedim(-1, 0), behind[index].movedim(-1, 0), masks[index][None]])
        torch.testing.assert_close(read[row], expected, atol=0.51 / 255, rtol=0)


def test_folders_outside_the_output_folder_are_refused(scenes, output):
    image, backdrop, mask = scenes
    for folder in ("../elsewhere", str(output.parent / "x"), ".", "a/../../x", r"\\server\share", "C:x", "a\0b"):
        with pytest.raises(SplitError, match="not below ComfyUI's output folder"):
            save_split(folder, image, backdrop, mask, ["", ""])
    with pytest.raises(ValueError, match="cannot be written|not below"):
        save_split("x" * 300, image, backdrop, mask, ["", ""])
    assert not output.exists() or not any(output.iterdir())


def test_what_is_refused(model, vae, empty, output):
    assert StageSplitLayers.validate_inputs(None, background=None) is True
    assert StageSplitLayers.validate_inputs(None, model=None, vae=None, positive=None) is True
    assert "model and vae and positive are not connected" in StageSplitLayers.validate_inputs(None)
    assert "but vae is not connected" in StageSplitLayers.validate_inputs(None, model=None, positive=None)
    with pytest.raises(ValueError, match="but positive is not connected"):
        split(picture(), box(), model=model, vae=vae)
    with pytest.raises(SplitError, match="2 lines for 1 pictures"):
        split(picture(), box(), background=picture(), captions="a\nb")
    with pytest.raises(SplitError, match="background has 1 of 32 x 64 pixels, image has 1 of 96 x 64"):
        split(picture(), box(), background=picture(1, 64, 32))


def test_the_embedded_model_fills_backgrounds_and_bad_ones_are_tried_again(scenes, output):
    """With words for the background; several tries never end worse than one."""
    register_model_class()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), embedding_directory=[])
    image, _, mask = scenes
    given = {"model": model, "vae": vae, "positive": encode(clip, ""), "steps": 4}
    once, twice = (split(image, mask, **given, tries=tries).args for tries in (1, 2))
    assert twice[4].count("BAD") <= once[4].count("BAD")
    hole = hole_to_fill(mask, 12)
    for result in (once, twice):
        assert torch.equal(result[1][hole == 0], image[hole == 0])
        assert (result[1] - image)[hole == 1].abs().mean() > 0.05
    passed = [line.endswith("good") for line in once[4].splitlines() if line.startswith("picture")]
    for index, good in enumerate(passed):
        assert torch.equal(once[1][index], twice[1][index]) or not good


def test_nan_is_said_and_not_handed_on(model, vae, empty):
    """This scheduler divides by the number of steps less one, so the only level of a run is NaN."""
    with pytest.raises(SplitError, match=r"What was painted behind the object has pixels that are not finite .* steps"):
        split(picture(), box(), model=model, vae=vae, positive=empty, scheduler="kl_optimal", steps=1)
