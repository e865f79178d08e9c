"""Each region gets its vector from where it can: a picture, a colour, the attention of the first step, or nowhere."""

import folder_paths
import pytest
import torch
from PIL import Image
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings, Rendering
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.region import Region
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.layered_rendering.small_runs import APART, AUTO, DYNAMIC, TWO, layered, sample

pytestmark = pytest.mark.usefixtures("no_gradients")

COLOUR = VisionGuidance("colour")
DOG, CAT = "a dog: 0 0 0.5 1", "a cat: 0.5 0 1 1"
MIXED = f"{DOG} | colour=red\n{CAT}"
DELTA, WORDS = "stagecraft_delta", "stagecraft_words"


def guided(prompt):
    """Entries of the layers with vision guidance: of the thing on the left, and of that on the right."""
    entries = [entry for entry in prompt if "stagecraft_own_mask" in entry[1]]
    return [[each for each in entries if each[1]["stagecraft_own_mask"][0, 0, 0] == left] for left in (1, 0)]


@pytest.mark.parametrize("more", [{}, APART], ids=["paper", "trajectories"])
def test_a_colour_and_a_measured_vector_in_one_run(model, clip, vae, prompts, more):
    auto, colour, dynamic = (
        layered(model, clip, vae, MIXED, prompts, guidance=guidance, **more) for guidance in (AUTO, COLOUR, DYNAMIC)
    )
    assembled = []
    for coloured, measured in zip(colour[1], dynamic[1], strict=True):
        (dog, nothing), (dog_before, _) = guided(coloured), guided(measured)
        assert len(dog) == len(dog_before) > 0 and not nothing
        assert all(DELTA in new[1] and WORDS in old[1] for new, old in zip(dog, dog_before, strict=True))
        new = {id(old): new for old, new in zip(dog_before, dog, strict=True)}
        assembled.append([new.get(id(entry), entry) for entry in measured])
    found = sample(*auto)
    assert torch.equal(found, sample(dynamic[0], assembled))
    assert not torch.equal(found, sample(*dynamic)) and not torch.equal(found, sample(*colour))


@pytest.mark.parametrize("more", [{}, APART, {"strength": -0.5}], ids=str)
def test_things_that_all_have_colours_are_guided_by_them(model, clip, vae, prompts, more):
    auto, colour = (layered(model, clip, vae, TWO, prompts, guidance=each, **more) for each in (AUTO, COLOUR))
    assert torch.equal(sample(*auto), sample(*colour))


def test_what_cannot_be_measured_is_left_to_its_mask(model, clip, vae, prompts):
    def rendered(text, guidance, *settings):
        return layered(model, clip, vae, text, prompts, guidance=guidance, settings=settings)

    unsaid = f"{MIXED} | something furry"
    assert torch.equal(sample(*rendered(unsaid, AUTO)), sample(*rendered(unsaid, COLOUR)))
    own = LayerSettings("a cat", encode(clip, "a white cat"))
    assert torch.equal(sample(*rendered(MIXED, AUTO, own)), sample(*rendered(MIXED, COLOUR, own)))
    with pytest.raises(ValueError, match="choose another source"):
        rendered(MIXED, DYNAMIC, own)


def test_a_regions_own_picture_counts_before_its_colour(model, clip, vae, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    Image.new("RGB", (40, 30), (20, 200, 60)).save(tmp_path / "thing.png")
    pictured = Region("a dog", (0, 0, 0.5, 1), colour="red", reference="thing.png")
    layout = Layout(
        64, 64, prompt="", background="", regions=(pictured, Region("a cat", (0.5, 0, 1, 1), colour="blue"))
    )

    def deltas(guidance, vae=vae):
        _, positive, _ = render_in_layers(model, clip, vae, layout, *prompts, Rendering(0.5, 1.0, guidance=guidance))
        return torch.cat([options[DELTA] for _, options in positive if DELTA in options])

    shown = torch.tensor([20, 200, 60]).div(255).expand(2, 512, 512, 3)
    by_name, by_colour = deltas(AUTO), deltas(COLOUR)
    assert torch.equal(by_name[1], by_colour[1]) and not torch.equal(by_name[0], by_colour[0])
    torch.testing.assert_close(by_name[0], deltas(VisionGuidance("reference", references=shown))[0])
    connected = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    chosen = deltas(VisionGuidance("auto", references=connected))
    assert torch.equal(chosen, deltas(VisionGuidance("reference", references=connected)))
    with pytest.raises(ValueError, match="no VAE is connected"):
        deltas(AUTO, None)
