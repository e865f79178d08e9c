"""Vision guidance against Eq. 5, its scale in every kind of state, and fusion against a slow version."""

import pytest
import torch
from stagecraft.core.attention.maps import average_maps
from stagecraft.core.layered_rendering.compositing import fused_prediction, join_layers
from stagecraft.core.layered_rendering.vision_guidance import (
    VisionGuidance,
    dynamic_scale,
    dynamic_vector,
    state_scale,
    vision_guidance,
)
from stagecraft.core.layout.reading import parse_layout


def test_inside_is_delta_and_outside_is_minus_delta():
    delta = torch.tensor([0.5, -2.0, 0.0])
    (xi,) = vision_guidance(delta[None], torch.tensor([[[1.0, 0.0], [0.5, 0.75]]]))
    assert xi.shape == (3, 2, 2)
    assert torch.equal(xi[:, 0, 0], delta)
    assert torch.equal(xi[:, 0, 1], -delta)
    assert torch.equal(xi[:, 1, 0], torch.zeros(3))
    assert torch.equal(xi[:, 1, 1], delta / 2)


def test_sides_of_different_strength():
    """The authors' script: + lambda2 f inside, - lambda1 f outside; between them where a mask is soft."""
    delta = torch.tensor([[0.5, -2.0], [1.0, 3.0]])
    xi = vision_guidance(delta, torch.tensor([[[1.0, 0.0, 0.5]]]), inside=0.05, outside=0.2)
    assert xi.shape == (2, 2, 1, 3)
    torch.testing.assert_close(xi[..., 0], 0.05 * delta[..., None])
    torch.testing.assert_close(xi[..., 1], -0.2 * delta[..., None])
    torch.testing.assert_close(xi[..., 2], -0.075 * delta[..., None])


def test_dynamic_vector_is_the_mean_latent_of_the_k_strongest_places():
    state = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    attention = torch.zeros(1, 3, 4)
    attention[0, 0, 1], attention[0, 2, 3], attention[0, 1, 1] = 3.0, 2.0, 1.0
    torch.testing.assert_close(dynamic_vector(state, attention, 1), torch.tensor([[1.0, 13.0]]))
    torch.testing.assert_close(dynamic_vector(state, attention, 2), torch.tensor([[6.0, 18.0]]))
    torch.testing.assert_close(dynamic_vector(state, attention, 999), state.mean((2, 3)))


@pytest.mark.parametrize("data", [0.0, 0.07, 0.7, 1.0])
@pytest.mark.parametrize("frames", [1, 16])
@pytest.mark.parametrize("top_k", [1, 20, 4096])
def test_a_dynamic_vector_is_as_long_as_a_cell_whatever_it_is_the_mean_of(top_k, frames, data):
    """Of noise, of a start that holds a picture (flat here), of many frames."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn(256, 4, 1, 1, generator=draw)
    noise = torch.randn(256 * frames, 4, 16, 16, generator=draw)
    state = data * pictures.repeat_interleave(frames, 0) + (1 - data**2) ** 0.5 * noise
    attention = torch.rand(256 * frames, 16, 16, generator=draw)
    means = dynamic_vector(state, attention, top_k).view(256, frames, 4).mean(1)
    found = means * dynamic_scale(min(top_k, 256) * frames, torch.tensor(data))
    assert found.square().mean().sqrt() == pytest.approx(1.0, abs=0.1)


def test_dynamic_vector_of_each_picture_of_a_batch_is_its_own():
    state, attention = torch.randn(3, 4, 5, 6), torch.rand(3, 5, 6)
    together = dynamic_vector(state, attention, 4)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], dynamic_vector(state[i : i + 1], attention[i : i + 1], 4))


def test_maps_of_several_grids_are_averaged_on_one():
    coarse, fine = torch.rand(2, 2, 2), torch.rand(2, 4, 4)
    found = average_maps([coarse, fine], 4, 4)
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(found.mean(), (coarse.mean() + fine.mean()) / 2)
    torch.testing.assert_close(average_maps([fine], 4, 4), fine)


def test_joining_takes_every_layer_where_it_is_seen():
    states = torch.randn(2, 1, 3, 2, 2)
    visible = torch.tensor([[[1.0, 0.0], [0.25, 0.0]], [[0.0, 1.0], [0.75, 0.5]]])[:, None, None]
    joined = join_layers(states, visible)
    torch.testing.assert_close(joined[0, :, 0, 0], states[0, 0, :, 0, 0])
    torch.testing.assert_close(joined[0, :, 0, 1], states[1, 0, :, 0, 1])
    torch.testing.assert_close(joined[0, :, 1, 0], 0.25 * states[0, 0, :, 1, 0] + 0.75 * states[1, 0, :, 1, 0])
    torch.testing.assert_close(joined[0, :, 1, 1], states[1, 0, :, 1, 1], msg="a missing share is not made up for")


def test_largest_first_keeps_orders_that_were_given():
    layout = parse_layout("a: 0 0 0.2 0.2\nb: 0 0 0.9 0.9 | order=1\nc: 0 0 0.5 0.5\nd: 0 0 0.1 0.1 | order=1")
    assert [region.phrase for region in layout.largest_first().sorted_regions()] == ["c", "a", "b", "d"]
    assert [region.phrase for region in layout.largest_first().regions] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "magic"}, 'the source "magic"; known: auto, colour, dynamic, reference, vector'),
        ({"inject": "never"}, 'the inject "never"; known: every step, first step, as published'),
        ({"top_k": 0}, "top_k 0; expected 1 or more"),
        ({"source": "vector"}, "needs the vector"),
        ({"source": "reference"}, "needs pictures"),
    ],
)
def test_guidance_that_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message):
        VisionGuidance(**settings)


def test_scale_of_a_variance_exploding_state():
    sigma = torch.tensor([0.0, 1.0, 14.6])
    torch.testing.assert_close(state_scale(torch.ones(3), sigma), torch.sqrt(sigma**2 + 1))


def test_scale_of_a_variance_preserving_state_is_one():
    abar = torch.rand(10)
    torch.testing.assert_close(state_scale(abar.sqrt(), (1 - abar).sqrt()), torch.ones(10))


def test_scale_of_a_flow_state_is_one_at_both_ends():
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(state_scale(1 - t, t), torch.tensor([1.0, 0.5**0.5, 1.0]))


def test_scale_is_the_same_process_in_any_units():
    """Measuring data and noise in other units must scale xi with the data: x / d = s (x_0 / d) + (n / d) eps."""
    signal, noise, deviation = torch.tensor(0.7), torch.tensor(3.0), 0.5
    in_units_of_data = state_scale(signal, noise / deviation)
    torch.testing.assert_close(state_scale(signal, noise, deviation), in_units_of_data)


def slow_fusion(denoised, visible):
    layers, batch, channels, height, width = denoised.shape
    fused = torch.zeros(batch, channels, height, width)
    for b in range(batch):
        for c in range(channels):
            for row in range(height):
                for column in range(width):
                    for i in range(layers):
                        fused[b, c, row, column] += visible[i, row, column] * denoised[i, b, c, row, column]
    return fused


def test_fusion_per_pixel():
    denoised, visible = torch.randn(3, 2, 2, 4, 3), torch.rand(3, 4, 3).softmax(0)
    torch.testing.assert_close(fused_prediction(denoised, visible), slow_fusion(denoised, visible))


def test_guidance_moves_the_prediction_towards_delta_inside_and_away_outside():
    """With the exact denoiser of unit-variance data, D(x) = x / (sigma^2 + 1), at every noise level."""
    mask, delta = torch.zeros(4, 6), torch.tensor([0.8, -0.5])
    mask[:, :3] = 1
    for sigma in (0.1, 1.0, 14.6):
        x = sigma * torch.randn(1, 2, 4, 6)
        scale = state_scale(torch.tensor(1.0), torch.tensor(sigma))
        shift = vision_guidance(delta[None], mask[None])[0] * scale
        plain, guided = (fused_prediction((at / (sigma**2 + 1))[None], torch.ones(1, 4, 6)) for at in (x, x + shift))
        moved = (guided - plain)[0]
        torch.testing.assert_close(moved[:, :, :3], (delta / scale)[:, None, None].expand(2, 4, 3))
        torch.testing.assert_close(moved[:, :, 3:], (-delta / scale)[:, None, None].expand(2, 4, 3))
