"""CaT2I-AE: shapes as the paper's, what its losses measure, and the adversarial part's two sides."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layers.placing import FOREGROUND_FROM, keep_inside
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig, LayeredOutput, compose
from stagecraft.core.text2layer.discriminator import (
    ADVERSARIAL_WEIGHT,
    SMALLEST_GRADIENT,
    PatchDiscriminator,
    adversarial_loss,
    balance,
    hinge_loss,
)
from stagecraft.core.text2layer.losses import (
    COMPOSITION_EPSILON,
    OUTSIDE_WEIGHT,
    Layers,
    blur,
    composition_loss,
    feature_distance,
    foreground_l1,
    kl_loss,
    laplacian_loss,
    laplacian_pyramid,
    layered_loss,
    mask_loss,
    picture_l1,
)

TINY = LayeredAutoencoderConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, head_width=8)
PATCHED = replace(TINY, block_out_channels=(8, 8, 16), patch_size=2, mid_block_add_attention=False)


def some_layers(seed=0, size=32, batch=2):
    generator = torch.Generator().manual_seed(seed)
    foreground, background = torch.rand(2, batch, 3, size, size, generator=generator)
    return Layers(foreground, background, torch.rand(batch, 1, size, size, generator=generator))


def test_the_defaults_are_stable_diffusions_autoencoder_around_the_papers_ends():
    from diffusers import AutoencoderKL

    published = {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    with torch.device("meta"):
        ours, stock = LayeredAutoencoder().state_dict(), AutoencoderKL(**published).state_dict()
    ends = {"encoder.conv_in.weight", "decoder.conv_out.weight", "decoder.conv_out.bias"}
    trunk = {name: tuple(value.shape) for name, value in ours.items() if not name.startswith("heads.")}
    expected = {name: tuple(value.shape) for name, value in stock.items()}
    assert {n: s for n, s in trunk.items() if n not in ends} == {n: s for n, s in expected.items() if n not in ends}
    assert trunk["encoder.conv_in.weight"] == (128, 7, 3, 3) and "decoder.conv_out.weight" not in trunk
    shapes = {name: tuple(value.shape) for name, value in ours.items() if name.endswith(".3.weight")}
    channels = {"foreground": 3, "background": 3, "mask": 1, "image": 3}
    assert shapes == {f"heads.{name}.3.weight": (count, 128, 3, 3) for name, count in channels.items()}


@pytest.mark.parametrize(
    "config", [TINY, PATCHED, replace(PATCHED, auxiliary=False), replace(PATCHED, group_norm=False)]
)
def test_latents_have_an_eighth_of_the_sides_and_layers_come_back_in_range(config):
    torch.manual_seed(0)
    model, layers = LayeredAutoencoder(config).eval(), some_layers(size=48)
    assert config.downscale == 8
    with torch.no_grad():
        latent = model.encode(layers.foreground, layers.background, layers.mask)
        output = model.decode(8 * latent)
    assert latent.shape == (2, 4, 6, 6)
    assert output.mask.shape == (2, 1, 48, 48) and output.foreground.shape == output.background.shape == (2, 3, 48, 48)
    assert (output.image is not None) == config.auxiliary
    for value in (x for x in vars(output).values() if x is not None):
        assert value.min() >= 0 and value.max() <= 1 and value.std() > 0
    expected = output.mask * output.foreground + (1 - output.mask) * output.background
    torch.testing.assert_close(output.composite(), expected)


def test_without_normalisation_a_part_is_seen_as_in_the_whole():
    torch.manual_seed(0)
    layers = some_layers(size=128, batch=1)
    stack = (layers.foreground, layers.background, layers.mask)
    for config, alike in ((replace(PATCHED, group_norm=False), True), (PATCHED, False)):
        model = LayeredAutoencoder(config).eval()
        with torch.no_grad():
            whole = model.encode(*stack)[..., 4:8, 4:8]
            part = model.encode(*(x[..., :96, :96] for x in stack))[..., 4:8, 4:8]
        assert torch.allclose(whole, part, atol=1e-5) == alike


def test_latents_start_with_little_noise():
    torch.manual_seed(0)
    layers = some_layers()
    with torch.no_grad():
        _, logvar = LayeredAutoencoder(TINY).posterior(layers.foreground, layers.background, layers.mask)
    assert (0.5 * logvar).exp().max() < 0.1


def test_a_foreground_counts_only_where_the_mask_is_above_a_tenth():
    torch.manual_seed(0)
    model, layers = LayeredAutoencoder(PATCHED).eval(), some_layers()
    outside = layers.mask <= FOREGROUND_FROM
    assert outside.any()
    with torch.no_grad():
        latent = model.encode(layers.foreground, layers.background, layers.mask)
        other = torch.where(outside, 1 - layers.foreground, layers.foreground)
        assert torch.equal(model.encode(other, layers.background, layers.mask), latent)
        other = torch.where(outside, layers.foreground, 1 - layers.foreground)
        assert not torch.allclose(model.encode(other, layers.background, layers.mask), latent, atol=1e-3)


def test_wrong_sizes_are_named():
    model, layers = LayeredAutoencoder(PATCHED), some_layers(size=36)
    with pytest.raises(ValueError, match="36 x 36 pixels; the layered autoencoder takes multiples of 8"):
        model.encode(layers.foreground, layers.background, layers.mask)
    with pytest.raises(ValueError, match=r"differ in size \(36 x 36, 32 x 32, 36 x 36\)"):
        model.encode(layers.foreground, layers.background[..., :32, :32], layers.mask)


def test_a_config_survives_json_and_names_what_it_does_not_know():
    assert LayeredAutoencoderConfig.from_dict(PATCHED.to_dict()) == PATCHED
    assert LayeredAutoencoderConfig.from_dict({}) == LayeredAutoencoderConfig()
    with pytest.raises(ValueError, match="no setting 'width'"):
        LayeredAutoencoderConfig.from_dict({"width": 3})
    with pytest.raises(ValueError, match="block_out_channels is 'wide'"):
        LayeredAutoencoderConfig.from_dict({"block_out_channels": "wide"})


def test_without_diffusers_it_says_what_to_install():
    script = (
        "import sys; sys.modules['diffusers'] = None; sys.path.insert(0, 'tests'); import conftest\n"
        "from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder\n"
        "try: LayeredAutoencoder()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "pip install diffusers" in done.stdout, done.stderr


@given(seed=st.integers(0, 1000), shade=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_perfect_prediction_costs_nothing_and_any_other_something(seed, shade):
    truth = some_layers(seed, size=16, batch=1)
    perfect = LayeredOutput(keep_inside(truth.foreground, truth.mask), truth.background, truth.mask, truth.composite())
    loss, parts = layered_loss(perfect, truth)
    assert abs(float(loss) - 6 * COMPOSITION_EPSILON) < 1e-5 and set(parts) == {
        "foreground",
        "background",
        "image",
        "mask",
    }
    for name in ("background", "mask", "image", "foreground"):
        other = replace(perfect, **{name: torch.full_like(getattr(perfect, name), shade)})
        assert layered_loss(other, truth)[0] > 1e-3


def test_the_losses_of_constant_errors_are_known():
    """A mask that is wrong by d everywhere: no band of the pyramid sees it, and each other norm is d times a mean."""
    truth, d = some_layers(), 0.25
    truth = replace(truth, mask=0.5 * truth.mask + 0.2)
    predicted = truth.mask + d
    assert float(laplacian_loss(predicted, truth.mask)) < 1e-6
    contrast = float((truth.foreground - truth.background).abs().sum(1).mean())
    assert float(composition_loss(predicted, truth)) == pytest.approx(d * contrast, rel=1e-4)
    assert float(mask_loss(predicted, truth)) == pytest.approx(d + 2 * d * contrast, rel=1e-4)
    assert float(picture_l1(truth.background + d, truth.background)) == pytest.approx(3 * 2 * d, rel=1e-4)


def test_the_pyramid_keeps_what_every_level_loses():
    mask = some_layers(size=32).mask
    bands = laplacian_pyramid(mask)
    assert [band.shape[-1] for band in bands] == [32, 16, 8]
    for band in bands:
        smaller = torch.nn.functional.avg_pool2d(blur(mask), 2)
        again = torch.nn.functional.interpolate(smaller, mask.shape[-2:], mode="bilinear")
        torch.testing.assert_close(again + band, mask)
        mask = smaller
    # Weights 1, 2, 4: an impulse's loss is that sum over the levels.
    impulse = torch.zeros(1, 1, 16, 16)
    impulse[..., 8, 8] = 1
    expected = sum(2**j * float(band.abs().mean()) for j, band in enumerate(laplacian_pyramid(impulse)))
    assert float(laplacian_loss(impulse, torch.zeros_like(impulse))) == pytest.approx(expected, rel=1e-5)


def test_a_slope_has_no_bands():
    slope = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    for j, band in enumerate(laplacian_pyramid(slope)):
        inside = band[..., 8 // 2**j + 4 : -(8 // 2**j + 4)]  # away from the border, whose values are repeated
        assert inside.abs().max() < 1e-6


def test_a_blur_keeps_constants_and_spreads_an_impulse_binomially():
    torch.testing.assert_close(blur(torch.full((1, 2, 7, 9), 0.3)), torch.full((1, 2, 7, 9), 0.3))
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 1
    row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    torch.testing.assert_close(blur(impulse)[0, 0, 2:7, 2:7], row[:, None] * row[None])


def test_an_error_outside_the_mask_weighs_a_tenth_of_one_inside():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :] = 1
    truth = Layers(torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8), mask)
    right = keep_inside(truth.foreground, mask)
    inside, outside = foreground_l1(right + 0.1 * mask, truth), foreground_l1(right + 0.1 * (1 - mask), truth)
    assert float(outside / inside) == pytest.approx(OUTSIDE_WEIGHT, rel=1e-4)


def test_a_perceptual_distance_sees_all_three_pictures_with_equal_weights():
    truth = some_layers()
    output = LayeredOutput(truth.background, truth.foreground, truth.mask, truth.background)
    seen = []

    def distance(predicted, true):
        seen.append((predicted, true))
        return (predicted - true).abs().mean()

    plain, parts = layered_loss(output, truth)
    loss, more = layered_loss(output, truth, distance)
    (predicted, true), inside = seen[0], keep_inside(torch.ones_like(truth.mask), truth.mask)
    torch.testing.assert_close(predicted, torch.cat([truth.background * inside, truth.foreground, truth.background]))
    torch.testing.assert_close(true, torch.cat([truth.foreground * inside, truth.background, truth.composite()]))
    assert float(loss - plain) == pytest.approx(9 * float((predicted - true).abs().mean()), rel=1e-4)
    assert set(more) - set(parts) == {"perceptual"}


def test_feature_distance_is_zero_for_the_same_features_whatever_their_length_and_four_for_opposite_ones():
    features = [torch.randn(2, 5, 4, 4), torch.randn(2, 3, 2, 2)]
    assert float(feature_distance(features, [3 * x for x in features])) < 1e-10
    assert float(feature_distance(features, [-x for x in features])) == pytest.approx(4, rel=1e-5)


def test_kl_is_that_of_two_normal_distributions():
    mean, logvar = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_loss(mean, logvar), expected)


def test_hinge_loss_ends_at_the_margins():
    assert float(hinge_loss(torch.full((2, 1), 1.5), torch.full((2, 1), -1.0))) == 0
    assert float(hinge_loss(torch.zeros(2, 1), torch.zeros(2, 1))) == 1


def test_each_side_learns_from_its_own_loss_only_and_the_balance_is_the_gradients_ratio():
    torch.manual_seed(0)
    discriminator, head = PatchDiscriminator(width=4), torch.nn.Conv2d(3, 3, 1)
    true = torch.rand(2, 3, 32, 32)
    predicted = head(true)
    reconstruction = (predicted - true).square().mean()
    fooled, found_out = adversarial_loss(discriminator, predicted, true, reconstruction, [head.weight])
    mine, theirs = [*head.parameters()], [*discriminator.parameters()]
    assert all(g is None for g in torch.autograd.grad(fooled, theirs, retain_graph=True, allow_unused=True))
    assert all(g is None for g in torch.autograd.grad(found_out, mine, retain_graph=True, allow_unused=True))
    gradient = torch.autograd.grad(fooled, head.weight, retain_graph=True)[0]
    wanted = torch.autograd.grad(reconstruction, head.weight, retain_graph=True)[0].norm()
    # d = n / (a + small), so a d = n a / (a + small): the ratio holds but for that small number.
    assert float(gradient.norm()) == pytest.approx(ADVERSARIAL_WEIGHT * float(wanted), rel=0.2)
    small = 1e-9 * head(true).mean()
    expected = float(wanted) / (
        float(torch.autograd.grad(small, head.weight, retain_graph=True)[0].norm()) + SMALLEST_GRADIENT
    )
    assert float(balance(reconstruction, small, [head.weight])) == pytest.approx(expected, rel=1e-4)
    assert discriminator(true).shape == (2, 1, 2, 2)


def test_compose_is_exact_where_the_mask_is():
    layers = some_layers()
    ones = torch.ones_like(layers.mask)
    assert torch.equal(compose(layers.foreground, layers.background, ones), layers.foreground)
    assert torch.equal(compose(layers.foreground, layers.background, 0 * ones), layers.background)
