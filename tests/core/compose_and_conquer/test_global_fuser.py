"""The global fuser against a plain reference at the published size, and soft guidance's columns behind it."""

import math

import pytest
import torch
import torch.nn.functional as F
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig

SMALL = TokenConfig(embedding=10, context=6, tokens=4)


def published(w, side, e):
    """One side: LayerNorm, GEGLU 768 -> 3072, Linear to 1536, LayerNorm, GEGLU 1536 -> 6144, Linear to 4 x 768."""
    for layer in ("1", "2"):
        e = F.layer_norm(e, e.shape[-1:], w[f"norm{layer}_{side}.weight"], w[f"norm{layer}_{side}.bias"])
        name = f"ff{layer}_{side}.net"
        both = e @ w[f"{name}.0.proj.weight"].T + w[f"{name}.0.proj.bias"]
        half = both.shape[-1] // 2
        gate = both[:, half:]
        e = both[:, :half] * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        e = e @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]
    return e.reshape(len(e), 4, -1)


@pytest.fixture(scope="module")
def full_size():
    torch.manual_seed(0)
    return GlobalFuser().eval().requires_grad_(False)


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        weights = GlobalFuser().state_dict()
    assert len(weights) == 24 and sum(weight.numel() for weight in weights.values()) == 94_427_136
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    for side in ("fg", "bg"):
        assert shapes[f"ff1_{side}.net.0.proj.weight"] == (6144, 768)
        assert shapes[f"ff1_{side}.net.2.weight"] == (1536, 3072)
        assert shapes[f"ff2_{side}.net.0.proj.weight"] == (12288, 1536)
        assert shapes[f"ff2_{side}.net.2.weight"] == (3072, 6144)
        assert shapes[f"norm1_{side}.weight"] == (768,) and shapes[f"norm2_{side}.bias"] == (1536,)
    assert TokenConfig.from_state_dict(weights) == TokenConfig()


def test_it_agrees_with_the_reference(full_size):
    torch.manual_seed(1)
    foreground, background = 5 * torch.randn(2, 3, 768)  # CLIP's projected embedding has about this length
    found = full_size(foreground, background)
    expected = [published(full_size.state_dict(), *side) for side in (("fg", foreground), ("bg", background))]
    assert [tuple(tokens.shape) for tokens in found] == [(3, 4, 768)] * 2
    torch.testing.assert_close(list(found), expected, rtol=1e-5, atol=1e-5)


def test_no_picture_is_not_no_tokens(full_size):
    """Zeros into the fuser, as training drops pictures out, give tokens of their own."""
    null, _ = full_size(torch.zeros(1, 768), torch.zeros(1, 768))
    assert null.abs().mean() > 1e-3
    torch.testing.assert_close(null, published(full_size.state_dict(), "fg", torch.zeros(1, 768)))


def test_swapping_the_pictures_swaps_columns_only():
    torch.manual_seed(0)
    fuser = GlobalFuser(SMALL).eval().requires_grad_(False)
    first, second = torch.randn(2, 1, 10)
    expected = fuser(first, second)
    mirrored = GlobalFuser(SMALL).eval()
    mirrored.load_state_dict({_other_side(name): weight for name, weight in fuser.state_dict().items()})
    found = mirrored(second, first)
    assert torch.equal(found[0], expected[1]) and torch.equal(found[1], expected[0])


def _other_side(name):
    return name.replace("_fg.", "_bg.") if "_fg." in name else name.replace("_bg.", "_fg.")


def test_other_files_are_told_apart():
    with torch.device("meta"):
        weights = GlobalFuser(SMALL).state_dict()
    assert TokenConfig.from_state_dict(weights) == SMALL
    with pytest.raises(ValueError, match="24 values cannot be cut into 7 tokens"):
        TokenConfig.from_state_dict(weights, tokens=7)
    del weights["norm1_fg.weight"]
    with pytest.raises(ValueError, match=r"norm1_fg\.weight is missing"):
        TokenConfig.from_state_dict(weights)
