"""Packed weights: what comes back, how large it is, and what is noticed when a file is damaged."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.compose_and_conquer.files import CnCFileError, read_fusers, write_fusers
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig
from stagecraft.core.weights import packed as packed_weights
from stagecraft.core.weights.packed import PACKED, SCALE, pack_weights, unpack_weights


@pytest.fixture(autouse=True)
def none_is_too_small(monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALL", 0)


def some_weights():
    generator = torch.Generator().manual_seed(0)
    made = {"conv.weight": (37, 5, 3, 3), "linear.weight": (64, 129), "linear.bias": (64,), "small.weight": (3, 3)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in made.items()}
    weights["conv.weight"] *= torch.logspace(-4, 1, 37)[:, None, None, None]  # every channel has a scale of its own
    weights["conv.weight"][7] = 0
    return weights


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_come_back_to_within_their_step(bits):
    weights = some_weights()
    back = unpack_weights(*pack_weights(weights, bits))
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        assert back[name].shape == weight.shape and back[name].dtype == torch.float16
    for name in ("linear.bias", "small.weight"):
        assert torch.equal(back[name], weights[name].half())
    assert not back["conv.weight"][7].any()
    for name in ("conv.weight", "linear.weight"):
        rows, found = weights[name].flatten(1), back[name].float().flatten(1)
        step = rows.abs().amax(1) / (2 ** (bits - 1) - 1)
        halves = 2.0**-11 * rows.abs() + 2.0**-25  # half precision's own rounding
        # Rounding to a step costs a twelfth of its square; a better step than the one of the largest value, no more.
        assert ((found - rows).square().mean(1) <= step.square() / 8 + halves.square().mean(1)).all()


def test_whole_numbers_come_back_exactly_and_in_as_few_bits_as_promised():
    numbers = torch.arange(64 * 33).reshape(64, 33) % 31 - 15
    weight = numbers * torch.logspace(-2, 2, 64, base=2.0)[:, None].half().float()
    weight[:, 0] = weight.abs().amax(1)
    tensors, metadata = pack_weights({"w": weight}, 5)
    assert tensors["w"].shape == (64, (33 * 5 + 7) // 8) and tensors["w"].dtype == torch.uint8
    torch.testing.assert_close(unpack_weights(tensors, metadata)["w"].float(), weight, rtol=1e-3, atol=0)


def test_small_weights_keep_all_bits(monkeypatch):
    weight = some_weights()["linear.weight"]
    monkeypatch.setattr(packed_weights, "SMALL", weight.numel() + 1)
    small, large = pack_weights({"w": weight}, 4), pack_weights({"w": weight.repeat(1, 2)}, 4)
    assert torch.equal(small[0]["w"], pack_weights({"w": weight}, 8)[0]["w"])
    assert large[0]["w"].shape == (64, 129) and unpack_weights(*large)["w"].shape == (64, 258)


def test_weights_that_are_to_be_exact_get_eight_bits():
    weights = {name: torch.randn(256, 256, generator=torch.Generator().manual_seed(0)) for name in ("a.x", "b.x")}
    packed = unpack_weights(*pack_weights(weights, 4, exact=("a.",)))
    alone = unpack_weights(*pack_weights(weights, 8))
    assert torch.equal(packed["a.x"], alone["a.x"]) and not torch.equal(packed["b.x"], alone["b.x"])


def test_eight_bits_are_nearer_than_floating_point_of_eight_bits():
    weight = some_weights()["linear.weight"]
    scale = weight.abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    floating = (weight / scale).to(torch.float8_e4m3fn).float() * scale
    packed = unpack_weights(*pack_weights({"w": weight}, 8))["w"].float()
    assert (packed - weight).norm() < (floating - weight).norm() / 2.5


def test_fusers_are_read_back_from_a_packed_file_and_damage_is_noticed(tmp_path):
    path = tmp_path / "cnc.safetensors"
    fuser = GlobalFuser(TokenConfig(embedding=64, context=32))
    write_fusers(path, None, fuser.state_dict(), bits=8)
    read = read_fusers(path)
    assert read.tokens == fuser.config
    for name, weight in fuser.state_dict().items():
        torch.testing.assert_close(read.global_[name].float(), weight, rtol=0, atol=float(weight.abs().max()) / 200)

    tensors, metadata = load_file(path), {}
    metadata[PACKED] = json.dumps({next(n for n in tensors if n + SCALE in tensors): [8, 9, 9]})
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CnCFileError, match="damaged"):
        read_fusers(path)
    save_file(tensors, path, metadata={PACKED: "nonsense"})
    with pytest.raises(CnCFileError, match="damaged"):
        read_fusers(path)
    with pytest.raises(ValueError, match="9 bits; expected 2 to 8"):
        pack_weights(fuser.state_dict(), 9)
