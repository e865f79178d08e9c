"""Soft masks as a short text: nothing of their greys is lost, and no text fills the memory."""

import base64
import json
import zlib

import pytest
import torch
from stagecraft.core.drawing.packed_greys import FLOATS, LEVELS, pack_greys, to_levels, unpack_greys
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import Region

SOFT = torch.linspace(0, 1, 48).reshape(6, 8) ** 2


def test_every_level_of_grey_comes_back():
    levels = to_levels(torch.linspace(0, 1, 256).reshape(16, 16))
    packed = json.loads(json.dumps(pack_greys(levels)))
    assert set(packed) == {"height", "width", LEVELS}
    assert torch.equal(unpack_greys(packed, 16, 256), levels)
    assert sorted(set((levels * 255).round().flatten().tolist())) == list(range(256))


def test_finer_greys_are_kept_as_floats():
    packed = pack_greys(SOFT)
    assert set(packed) == {"height", "width", FLOATS} and torch.equal(unpack_greys(packed, 16, 256), SOFT)


@pytest.mark.parametrize(
    "mask", [SOFT, to_levels(SOFT), SOFT.round(), SOFT * 0.3], ids=["float", "level", "hard", "faint"]
)
def test_a_mask_comes_through_a_layout_with_its_greys(mask):
    layout = parse_layout(
        json.dumps([{"phrase": "a", "mask": Region("a", mask=mask).to_dict()["mask"]}]), width=64, height=48
    )
    again = parse_layout(json.dumps(layout.to_dict()))
    assert torch.equal(again.regions[0].mask, mask)
    assert again.fingerprint() == layout.fingerprint()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 0}, "expected sides of 1 to 64"),
        ({"width": True}, "expected sides of 1 to 64"),
        ({"height": 64, "width": 64}, "at most 1024"),
        ({"height": 3}, "too few or too many"),
        ({LEVELS: "!"}, "cannot be unpacked"),
        ({LEVELS: 5}, "cannot be unpacked"),
        ({LEVELS: base64.b64encode(b"no zlib").decode()}, "cannot be unpacked"),
        ({LEVELS: base64.b64encode(zlib.compress(bytes(10**7))).decode()}, "too few or too many"),
    ],
)
def test_damaged_texts_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        unpack_greys(pack_greys(to_levels(SOFT)) | change, 64, 1024)


def test_layouts_share_a_fingerprint_only_if_they_are_equal():
    known = [
        parse_layout(text, width=64, height=64) for text in ("a dog: 0 0 1 1", "a dog: 0 0 1 0.5", "a cat: 0 0 1 1")
    ]
    masked = [Region("a", mask=mask) for mask in (SOFT, SOFT.flip(0))]
    prints = [each.fingerprint() for each in known]
    prints += [parse_layout(json.dumps([each.to_dict()]), width=64, height=48).fingerprint() for each in masked]
    assert len(set(prints)) == 5
    assert parse_layout(json.dumps(known[0].to_dict())).fingerprint() == prints[0]
