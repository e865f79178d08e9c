"""Vision guidance against Eq. 5, its scale in every kind of state, and fusion against a slow version."""

import torch
from stagecraft.core.vision_guidance import fused_prediction, state_scale, vision_guidance


def test_inside_is_delta_and_outside_is_minus_delta():
    delta = torch.tensor([0.5, -2.0, 0.0])
    xi = vision_guidance(delta, torch.tensor([[1.0, 0.0], [0.5, 0.75]]))
    assert xi.shape == (3, 2, 2)
    assert torch.equal(xi[:, 0, 0], delta)
    assert torch.equal(xi[:, 0, 1], -delta)
    assert torch.equal(xi[:, 1, 0], torch.zeros(3))
    assert torch.equal(xi[:, 1, 1], delta / 2)


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
        shift = vision_guidance(delta, mask) * scale
        plain, guided = (fused_prediction((at / (sigma**2 + 1))[None], torch.ones(1, 4, 6)) for at in (x, x + shift))
        moved = (guided - plain)[0]
        torch.testing.assert_close(moved[:, :, :3], (delta / scale)[:, None, None].expand(2, 4, 3))
        torch.testing.assert_close(moved[:, :, 3:], (-delta / scale)[:, None, None].expand(2, 4, 3))
