"""Attention maps in ComfyUI, against hooks on the network's own layers, and the node that draws them."""

import comfy.sample
import pytest
import torch
from stagecraft.core.attention.comfy.maps import Reading, attention_maps
from stagecraft.core.attention.heat_maps import scaled_map
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.drawing.packed_greys import unpack_greys
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance
from stagecraft.nodes.attention_guidance.attention_maps import StageAttentionMaps
from stagecraft.tests.comfy.conftest import PROMPT, encode

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_maps_are_those_of_the_networks_own_layers(model, clip, vae):
    """One evaluation, against hooks on the layers of the network."""
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    reading = Reading(noise=0.5, sites="middle and first up", seed=3)
    found = attention_maps(model, clip, latent, PROMPT, ["a dog", "meadow"], reading).maps
    sampling = model.get_model_object("model_sampling")
    sigma = sampling.percent_to_sigma(0.5)
    noise = comfy.sample.prepare_noise(latent, 3)
    x = model.model.process_latent_in(latent) + sigma * noise
    loop = SlowGuidance(model.model.diffusion_model, [], None, None, None, None)
    timestep = sampling.timestep(torch.tensor(sigma)).float()
    _, maps = loop.evaluate(x, sigma, timestep, encode(clip, PROMPT)[0][0].expand(2, -1, -1))
    for i, phrase in enumerate(["a dog", "meadow"]):
        columns = phrase_positions(clip, PROMPT, phrase)
        sides = [int(each.shape[2] ** 0.5) for each in maps]
        coarse = [each[..., columns].mean((1, 3)).reshape(2, 1, n, n) for each, n in zip(maps, sides, strict=True)]
        fine = [torch.nn.functional.interpolate(each, (16, 16), mode="bilinear")[:, 0] for each in coarse]
        expected = torch.stack(fine).mean(0)
        torch.testing.assert_close(found[:, i], expected, atol=1e-5, rtol=0)


def test_the_maps_node_draws_every_phrase_of_every_picture(model, clip, vae):
    pictures = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(9))
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.5 1 1", width=96, height=64, prompt=PROMPT)
    given = 0.5, "quarter of the latent", 0
    drawn, masks, text = StageAttentionMaps.execute(model, clip, vae, pictures, "", "", *given, layout).args
    assert text == "Attention maps were read in: down 0 (6 x 4), middle 0 (6 x 4)."
    assert drawn.shape == (4, 512, 768, 3) and masks.shape == (4, 64, 96)
    assert 0 <= drawn.min() and drawn.max() <= 1 and torch.equal(masks.amax((1, 2)), torch.ones(4))
    (shown,) = StageAttentionMaps.execute(model, clip, vae, pictures, "", "", *given, layout).ui["stage_maps"]
    assert shown["layout"] == layout.fingerprint() and [each["phrase"] for each in shown["maps"]] == ["a dog", "a cat"]
    for each, mask in zip(shown["maps"], masks, strict=False):  # those of the first picture
        small = unpack_greys(each["map"], 96, 96 * 96)
        assert small.shape == (8, 12) and small.max() == 1
        torch.testing.assert_close(scaled_map(small, 64, 96), mask, atol=0.02, rtol=0)
    one = StageAttentionMaps.execute(model, clip, vae, pictures[:1], PROMPT, "meadow", *given).args[1]
    assert len(one) == 1
    alone = StageAttentionMaps.execute(model, clip, vae, pictures, PROMPT, "a cat\na dog", *given).args[1]
    torch.testing.assert_close(alone, masks[[1, 0, 3, 2]])
    with pytest.raises(LayoutError, match="no prompt or no phrases"):
        StageAttentionMaps.execute(model, clip, vae, pictures, "a dog", "", *given)
    with pytest.raises(LayoutError, match="or remove it from the phrases"):
        StageAttentionMaps.execute(model, clip, vae, pictures, "a dog", "a hippo", *given)
