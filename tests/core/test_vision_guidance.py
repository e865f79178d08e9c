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


def slow_fusion(denoised, offsets, visible):
    layers, batch, channels, height, width = denoised.shape
    fused = torch.zeros(batch, channels, height, width)
    for b in range(batch):
        for c in range(channels):
            for row in range(height):
                for column in range(width):
                    for i in range(layers):
                        layer = denoised[i, b, c, row, column] - offsets[i, c, row, column]
                        fused[b, c, row, column] += visible[i, row, column] * layer
    return fused


def test_fusion_per_pixel():
    denoised, offsets = torch.randn(3, 2, 2, 4, 3), torch.randn(3, 2, 4, 3)
    visible = torch.rand(3, 4, 3).softmax(0)
    torch.testing.assert_close(fused_prediction(denoised, offsets, visible), slow_fusion(denoised, offsets, visible))


def test_fusion_of_predictions_is_fusion_of_network_outputs():
    """Eq. 8: what moves x is the masked sum of the layers' outputs at x + Delta_i, whether noise or velocity."""
    x, level = torch.randn(2, 4, 6, 6, dtype=torch.double), 0.6
    offsets = torch.randn(3, 4, 6, 6, dtype=torch.double)
    outputs = torch.randn(3, 2, 4, 6, 6, dtype=torch.double)
    visible = torch.rand(3, 6, 6, dtype=torch.double).softmax(0)
    denoised = x + offsets[:, None] - level * outputs  # x_0 = x - sigma eps, and x_0 = x - t v
    direction = (x - fused_prediction(denoised, offsets, visible)) / level
    torch.testing.assert_close(direction, (visible[:, None, None] * outputs).sum(0))
