"""The local fuser against a plain one (`published_fuser`) at SD 1.5's size, and what its shapes promise."""

import copy
import re
import zlib

import pytest
import torch
import torch.nn.functional as F
from stagecraft.core.compose_and_conquer.config import FuserConfig
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.core.compose_and_conquer.sd1_blocks import Denormalisation
from stagecraft.tests.core.compose_and_conquer.published_fuser import fdn, features, published
from torch import nn

SMALL = FuserConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    num_heads=2,
    context_dim=24,
    extractor_widths=(4, 6, 6, 8),
    stage_widths=(10, 12),
)
TEXT, TOKENS = 77, 4
PARITY = {"rtol": 1e-5, "atol": 1e-5}
PUBLISHED_SHAPES = {  # of the published file
    "feature_extractor.fg_extractor.0.weight": (32, 3, 3, 3),
    "feature_extractor.extractors.0.0.weight": (192, 128, 3, 3),
    "feature_extractor.extractors.3.0.weight": (512, 384, 3, 3),
    "input_blocks.1.0.norm_in.conv_gamma.weight": (320, 192, 3, 3),
    "input_blocks.4.0.norm_in.conv_gamma.weight": (320, 256, 3, 3),
    "input_blocks.4.0.norm_out.conv_beta.weight": (640, 256, 3, 3),
    "input_blocks.7.0.norm_in.conv_gamma.weight": (640, 384, 3, 3),
    "input_blocks.10.0.norm_out.conv_gamma.weight": (1280, 512, 3, 3),
    "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    "input_blocks.3.0.op.weight": (320, 320, 3, 3),
    "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
    "zero_convs.11.0.weight": (1280, 1280, 1, 1),
    "middle_block_out.0.bias": (1280,),
}


def fill_zeros(fuser):
    """Give what starts at zero weights that keep the size of what goes through."""
    for module in fuser.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv2d | nn.Linear) and not weight.any():
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            nn.init.normal_(module.bias, std=0.1)
    return fuser


def inputs(config, rows, columns, batch=2, tokens=TEXT + 2 * TOKENS):
    torch.manual_seed(1)
    depths = torch.rand(2, batch, 3, 8 * rows, 8 * columns)
    x = torch.randn(batch, config.in_channels, rows, columns)
    return x, torch.tensor([3, 981][:batch]), torch.randn(batch, tokens, config.context_dim), *depths


def flat(outputs):
    return [*outputs[0], outputs[1]]


@pytest.fixture(scope="module")
def full_size():
    """Random weights; the same million numbers over and over, as drawing 400 million takes long."""
    with torch.device("meta"):
        fuser = LocalFuser(FuserConfig()).requires_grad_(False)
    fuser.to_empty(device="cpu")
    noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))  # prime: no two rows begin alike
    for name, weight in fuser.named_parameters():
        flat_weight, start = weight.flatten(), zlib.crc32(name.encode()) % len(noise)
        for part in flat_weight.split(len(noise)):
            part.copy_(noise.roll(start)[: len(part)])
        weight.mul_(0.1 if weight.ndim < 2 else (3 * weight[0].numel()) ** -0.5)  # as torch.nn starts
        weight.add_(1.0 if weight.ndim < 2 and name.endswith("weight") else 0.0)
    return fuser


# --- parity ---


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        weights = LocalFuser(FuserConfig()).state_dict()
    assert len(weights) == 372 and sum(weight.numel() for weight in weights.values()) == 411_807_104
    assert PUBLISHED_SHAPES.items() <= {name: tuple(weight.shape) for name, weight in weights.items()}.items()
    for number in (1, 4, 7, 10):
        assert not {f"input_blocks.{number}.0.{part}_layers.0.weight" for part in ("in", "out")} & weights.keys()
    assert (
        "input_blocks.10.1.proj_in.weight" not in weights and "input_blocks.1.0.skip_connection.weight" not in weights
    )


def test_the_extractor_agrees_with_the_reference(full_size):
    depths = inputs(FuserConfig(), 6, 4)[3:]
    expected = features(full_size.state_dict(), *depths)
    found = full_size.feature_extractor(*depths)
    assert [tuple(f.shape[1:]) for f in found] == [(192, 6, 4), (256, 3, 2), (384, 2, 1), (512, 1, 1)]
    torch.testing.assert_close(found, expected, **PARITY)


def test_the_denormalisation_agrees_with_the_reference():
    torch.manual_seed(0)
    module = Denormalisation(64, 12, nn)
    h, f = 3 + 2 * torch.randn(2, 64, 5, 7), torch.randn(2, 12, 5, 7)
    weights = {f"n.{name}": weight for name, weight in module.state_dict().items()}
    torch.testing.assert_close(module(h, module.modulation(f)), fdn(weights, "n", h, f), **PARITY)


@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_fuser_agrees_with_the_reference(full_size, masked):
    """With soft guidance too: the text is open everywhere, four tokens only inside and four only outside the mask."""
    given = inputs(FuserConfig(), 4, 6)

    def allowed(rows, columns):
        inside = torch.zeros(rows, columns, dtype=torch.bool)
        inside[: (rows + 1) // 2] = True
        inside = inside.flatten()[:, None]
        text = torch.ones(len(inside), TEXT, dtype=torch.bool)
        every = torch.cat([text, inside.expand(-1, TOKENS), ~inside.expand(-1, TOKENS)], 1)
        return every.expand(2, -1, -1)

    def attend(q, k, v, heads, *, grid):
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed(*grid)[:, None])
        return out.transpose(1, 2).flatten(2)

    expected = published(full_size.state_dict(), *given, masked=allowed if masked else None)
    found = full_size(*given, attend=attend if masked else None)
    modulations = full_size.modulations(*(depth[:1] for depth in given[3:]))  # of the first picture, for both
    shared = full_size.residuals(*given[:3], modulations, attend=attend if masked else None)
    torch.testing.assert_close([r[0] for r in flat(shared)], [r[0] for r in flat(expected)], **PARITY)
    assert len(found[0]) == 12 and [r.shape[1] for r in found[0]] == [320] * 4 + [640] * 3 + [1280] * 5
    torch.testing.assert_close(flat(found), flat(expected), **PARITY)
    assert min(residual.abs().mean() for residual in flat(expected)) > 0.05  # else agreement would mean little


# --- what its shapes promise ---


def test_fresh_residuals_are_zero_and_an_extractor_that_starts_at_zero_still_learns():
    torch.manual_seed(0)
    fuser = LocalFuser(SMALL)
    given = inputs(SMALL, 5, 3)
    assert not any(residual.any() for residual in flat(fuser(*given)))
    sum((residual - 1).square().sum() for residual in flat(fuser(*given))).backward()
    assert all(conv[0].weight.grad.any() for conv in fuser.zero_convs) and fuser.middle_block_out[0].weight.grad.any()


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 5), (3, 10)])
def test_any_size_and_batch_and_every_picture_for_itself(rows, columns):
    torch.manual_seed(0)
    fuser = fill_zeros(LocalFuser(SMALL)).requires_grad_(False)
    given = inputs(SMALL, rows, columns)
    both = flat(fuser(*given))
    halves = [(-(-rows // 2), -(-columns // 2))] * 3  # down, level 1, middle
    assert [tuple(r.shape[-2:]) for r in both] == [(rows, columns)] * 2 + halves
    for row in range(2):
        one = flat(fuser(*(part[row : row + 1] for part in given)))
        torch.testing.assert_close(one, [residual[row : row + 1] for residual in both], **PARITY)


def test_swapping_the_maps_swaps_channels_only():
    """With the streams' weights swapped too, and the columns of the first joint layer, nothing else may change."""
    torch.manual_seed(0)
    fuser = fill_zeros(LocalFuser(SMALL)).requires_grad_(False)
    x, t, context, foreground, background = inputs(SMALL, 6, 6)
    expected = flat(fuser(x, t, context, foreground, background))
    assert not torch.allclose(expected[1], fuser(x, t, context, background, foreground)[0][1], rtol=1e-3)
    mirrored = copy.deepcopy(fuser)
    extractor = mirrored.feature_extractor
    extractor.fg_extractor, extractor.bg_extractor = extractor.bg_extractor, extractor.fg_extractor
    joint = extractor.extractors[0][0]
    joint.weight.copy_(joint.weight.roll(SMALL.extractor_widths[-1], 1))
    torch.testing.assert_close(flat(mirrored(x, t, context, background, foreground)), expected, **PARITY)


def test_a_map_of_another_size_is_named():
    x, t, context, foreground, background = inputs(SMALL, 6, 6)
    with pytest.raises(ValueError, match=r"\(2, 3, 48, 40\).*has to be \(2, 3, 48, 48\)"):
        LocalFuser(SMALL)(x, t, context, foreground[..., :40], background)


# --- configurations ---


@pytest.mark.parametrize("config", [FuserConfig(), SMALL])
def test_shapes_are_read_off_the_weights(config):
    with torch.device("meta"):
        weights = LocalFuser(config).state_dict()
    read = FuserConfig.from_state_dict(weights)
    assert {**vars(read), "num_heads": config.num_heads} == vars(config)
    assert FuserConfig.from_state_dict(weights, 16).heads(64) == 4
    del weights["input_blocks.0.0.weight"]
    with pytest.raises(ValueError, match=r"input_blocks\.0\.0\.weight is missing"):
        FuserConfig.from_state_dict(weights)


SD15 = {"model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2] * 4, "context_dim": 768}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_heads": 8, "num_head_channels": -1}, None),
        ({"in_channels": 9, "num_heads": 8}, None),  # inpainting models
        ({"channel_mult": [1, 2, 4], "context_dim": 2048, "num_res_blocks": [2] * 3}, "belong to SD 1.x.*is SDXL"),
        ({"context_dim": 1024}, "the connected model is SD 2.x"),
        ({"num_res_blocks": [1] * 4}, r"the connected model has \[1, 1, 1, 1\]"),
        ({"num_heads": -1, "num_head_channels": 64}, "into 20 heads, the CnC file into 8"),
    ],
)
def test_another_unet_is_told_apart(changes, sentence):
    found = FuserConfig().matches(SD15 | changes)
    assert found is None if sentence is None else re.search(sentence, found)


def test_a_model_without_levels_is_told_apart():
    assert "the connected model (flux) is no such U-Net" in FuserConfig().matches({"image_model": "flux", "depth": 19})


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="one stage per level"):
        FuserConfig(stage_widths=(64, 96))
    with pytest.raises(ValueError, match="cannot be split into 32 groups"):
        FuserConfig(model_channels=40)


def test_a_fuser_starts_as_a_clone_of_the_encoder():
    torch.manual_seed(0)
    donor, fuser = fill_zeros(LocalFuser(SMALL)), LocalFuser(SMALL)
    before = copy.deepcopy(fuser.state_dict())
    unet = {f"model.diffusion_model.{name}": weight for name, weight in donor.state_dict().items()}
    fuser.load_encoder(unet)
    for name, weight in fuser.state_dict().items():
        is_encoder = name.startswith(("time_embed", "input_blocks", "middle_block.")) and "norm_" not in name
        assert torch.equal(weight, (donor.state_dict() if is_encoder else before)[name]), name
    assert not any(residual.any() for residual in flat(fuser(*inputs(SMALL, 4, 4))))
    del unet["model.diffusion_model.input_blocks.3.1.norm.weight"]
    with pytest.raises(ValueError, match=r"1 weights .* input_blocks\.3\.1\.norm\.weight first"):
        fuser.load_encoder(unet)
