"""Editing with the embedded checkpoint: the rest of a picture stays, and the inversion finds its way back."""

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from stagecraft.core.comfy.guider import Prompts
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.editing.edits import insert, move, remove, replace
from stagecraft.core.inversion.comfy.invert import invert_latent
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layout.region import Region
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.editing.small_edits import sample

pytestmark = pytest.mark.usefixtures("no_gradients")


def psnr(found, given):
    """In dB, of pictures in 0..1."""
    return float(-10 * torch.log10((found - given).square().mean()))


@pytest.fixture(scope="module")
def embedded():
    register_model_class()
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), embedding_directory=[])


@pytest.mark.parametrize("action", ["insert", "replace", "remove", "move"])
def test_the_rest_of_a_picture_stays_at_35_db(embedded, action):
    model, clip, vae, _ = embedded
    scene = make_scene(77, 1, held_out=None, counts=(0, 0, 1.0))
    image = torch.from_numpy(scene.image)[None].float() / 255
    thing = scene.objects[-1]
    mask, phrase = torch.from_numpy(thing.visible)[None], f"a {thing.concept}"
    edit = {
        "insert": insert(Region("a cat", box=(0.6, 0.55, 0.95, 0.9), colour="#f3a04b")),
        "replace": replace(mask, "a cat", whole_box=True, colour="#f3a04b"),
        "remove": remove(mask, phrase),
        "move": move(mask, phrase, 0.3, 0.1),
    }[action]
    texts = (encode(clip, scene.caption), encode(clip, ""))
    ours, positive, negative, latent, free = edit_picture(
        model, clip, vae, image, [edit], *texts, Editing(0.5, 0.6, source_prompt=scene.caption)
    )
    result = vae.decode(sample(ours, (positive, negative), latent, steps=8))[0]
    outside = free[0] == 0
    given = vae.decode(latent)[0]
    assert psnr(result[outside], given[outside]) >= 35
    if edit.shift is None:
        assert torch.equal(latent, vae.encode(image))
    assert psnr(result[free[0] == 1], given[free[0] == 1]) < 30, "nothing was edited"


def test_the_embedded_model_finds_its_way_back(embedded):
    """Latents at 50 dB of their range and pixels at 40 dB in 20 steps of the default inversion."""
    model, clip, vae, _ = embedded
    scene = make_scene(77, 0, held_out=None, counts=(0, 0, 1.0))
    latent = vae.encode(torch.from_numpy(scene.image)[None].float() / 255)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 20)
    text = encode(clip, scene.caption)
    inverted = invert_latent(model, Prompts(text), latent, rising_sigmas(sigmas), refinements=1, disable_pbar=True)[-1]
    clean = model.model.process_latent_in(latent)
    noise = (inverted - clean) / torch.sqrt(sigmas[0] ** 2 + 1)
    how = 20, 1.0, "euler", "normal"
    back = comfy.sample.sample(model, noise, *how, text, text, latent, seed=0, disable_pbar=True)
    found = model.model.process_latent_in(back)
    extent = float(clean.max() - clean.min())
    assert 10 * torch.log10(extent**2 / (found - clean).square().mean()) > 50
    assert psnr(vae.decode(back), vae.decode(latent)) > 40
