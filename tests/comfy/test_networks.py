"""Networks beside ComfyUI's own models: how long they live, who shares them, and who moves them."""

import gc
import os
import shutil
import weakref
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import torch
from stagecraft.core.clip.comfy.folder import FolderClip
from stagecraft.core.comfy.device import WholePatcher, on_device, patcher_of
from stagecraft.nodes.clip.folder import StageCLIPLoader
from stagecraft.nodes.segmentation.segment import StageSegmenterLoader
from stagecraft.nodes.tcig.models import StageVQGANLoader

MODELS = Path(__file__).resolve().parents[2] / "models"
# Each with the output that is meant.
LOADERS = ((StageVQGANLoader, 0), (StageCLIPLoader, 0), (StageCLIPLoader, 1), (StageSegmenterLoader, 0))
NAME = "sticker_world"


@pytest.fixture(params=LOADERS, ids=lambda each: f"{each[0].__name__}-{each[1]}")
def output(request):
    """A loader and one of its outputs."""
    return request.param


@pytest.fixture
def loader(output, tmp_path, monkeypatch):
    """The loader, whose drop-down has only a copy of the embedded folder."""
    kind = output[0].FILES.kind
    shutil.copytree(MODELS / kind / NAME, tmp_path / NAME)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path)], set()))
    return output[0]


@pytest.fixture
def loaded(output, loader):
    """Gives what the node hands on, as the executor runs it."""

    def load():
        with torch.inference_mode():
            found = loader.execute(NAME).args[output[1]]
            if isinstance(found, FolderClip):
                return found.guide
        return found[-1] if isinstance(found, tuple) else found

    return load


def network_of(thing):
    return thing.model if hasattr(thing, "patcher") else thing.network


def at_work(thing):
    """As nodes bring it to work."""
    if hasattr(thing, "patcher"):
        comfy.model_management.load_models_gpu([thing.patcher])
    else:
        with on_device([thing.network, thing.network]):
            pass


def is_managed(thing):
    known = comfy.model_management.loaded_models()
    return (thing.patcher if hasattr(thing, "patcher") else patcher_of(thing.network)) in known


def free_everything():
    """What ComfyUI's "free model cache" does besides dropping the outputs of nodes."""
    comfy.model_management.unload_all_models()
    gc.collect()


def test_it_goes_with_the_outputs_that_hold_it(loaded):
    others = list(comfy.model_management.current_loaded_models)  # of earlier tests
    thing = loaded()
    at_work(thing)
    assert is_managed(thing)
    network = network_of(thing)
    weights = [weakref.ref(each) for each in (thing, network, *network.parameters(), *network.buffers())]
    del thing, network
    free_everything()
    assert not any(each() is not None for each in weights)
    now = comfy.model_management.current_loaded_models
    assert all(each.model is not None for each in now if not any(each is other for other in others))


def test_an_output_that_is_still_held_survives_and_works_again(loaded):
    thing = loaded()
    at_work(thing)
    before = [weight.clone() for weight in network_of(thing).parameters()]
    free_everything()
    assert not is_managed(thing)
    assert loaded() is thing
    at_work(thing)
    assert is_managed(thing)
    for weight, old in zip(network_of(thing).parameters(), before, strict=True):
        assert torch.equal(weight, old)


@pytest.mark.parametrize("time", [1, 4 * 10**18], ids=["older", "newer"])
def test_loaders_share_it_until_a_file_changes(loader, loaded, tmp_path, time):
    first, before = loaded(), loader.fingerprint_inputs(NAME)
    assert loaded() is first and loader.fingerprint_inputs(NAME) == before != ()
    config = tmp_path / NAME / "config.json"
    os.utime(config, ns=(time, time))
    assert loader.fingerprint_inputs(NAME) != before
    second = loaded()
    assert second is not first and loaded() is second
    (tmp_path / NAME / "config.json").unlink()
    assert loader.fingerprint_inputs(NAME) != before


class Remembering(torch.nn.Linear):
    """A network whose weights are not only in its leaves, and that knows its device itself as transformers' do."""

    def __init__(self):
        super().__init__(3, 3)
        self.inner = torch.nn.Linear(3, 3)
        self.register_buffer("scale", torch.ones(3))

    @property
    def device(self):
        return self.weight.device


@pytest.mark.parametrize("room", [0, 1], ids=["room", "no room"])
def test_it_is_moved_as_a_whole_and_can_be_differentiated_through(room):
    """ComfyUI moves while nodes run in inference mode, and would leave behind what has no room.

    To another type of numbers instead of another device, which not every machine has.
    """
    network = Remembering()
    patcher = patcher_of(network)
    assert patcher is patcher_of(network) and isinstance(patcher, WholePatcher)
    assert patcher.model_size() == sum(each.nbytes for each in network.state_dict().values())
    with torch.inference_mode():
        patcher.partially_load(torch.float64, room)
        assert {each.dtype for each in network.state_dict().values()} == {torch.float64}
        assert patcher.loaded_size() > 0 == patcher.partially_unload(torch.float32, 1)
        assert {each.dtype for each in network.state_dict().values()} == {torch.float64}
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
            torch.nn.functional.linear(network.inner(x) * network.scale, network.weight).sum().backward()
        assert x.grad.abs().sum() > 0
        patcher.unpatch_model(torch.float32)
    assert {each.dtype for each in network.state_dict().values()} == {torch.float32}
    assert not any(each.is_inference() for each in network.state_dict().values())
    assert patcher.loaded_size() == 0
