"""What travels on prompts' entries comes off them as it was put on, and leaves what others have put there."""

from dataclasses import fields

import pytest
import torch
from stagecraft.core.comfy.entries import PREFIX
from stagecraft.core.editing.comfy.entry import EditEntry, SourceEntry
from stagecraft.core.layered_rendering.comfy.entry import HandOver, LayerEntry, VisionEntry

MASK = torch.rand(1, 4, 6)
KINDS = (
    LayerEntry(7, MASK),
    LayerEntry(7, MASK, cfg=0.0, crop=0),
    VisionEntry(MASK, torch.tensor([1.0, 0.5]), "every step", delta=torch.ones(1, 4)),
    VisionEntry(MASK, torch.ones(2), "first step", words=[torch.tensor([2])], factors=torch.ones(1), top_k=20),
    HandOver(layers_until=0.7),
    HandOver(trajectories_until=0.0),
    SourceEntry(),
    EditEntry(MASK[0], MASK[0], 0, 1),
)


@pytest.mark.parametrize("written", KINDS, ids=lambda each: type(each).__name__)
def test_it_comes_off_as_it_was_put_on(written):
    kind, options = type(written), written.to_options()
    assert all(key.startswith("stagecraft_") for key in options) and None not in options.values()
    entry = {"strength": 1.0} | options
    assert kind.is_on(entry)
    read = kind.from_options(entry)
    assert all(getattr(read, field.name) is getattr(written, field.name) for field in fields(kind))
    assert entry == {"strength": 1.0} and not kind.is_on(entry) and kind.from_options(entry) is None


def test_no_two_of_them_meet_under_one_key():
    kinds = {type(each) for each in KINDS}
    keys = [PREFIX + field.name for kind in kinds for field in fields(kind)]
    assert len(set(keys)) == len(keys)
