"""Files of small fusers, and the prompts and depth maps of all these tests."""

import pytest
import torch
from stagecraft.core.compose_and_conquer.comfy.files import CNC, load_cnc
from stagecraft.core.compose_and_conquer.files import write_fusers
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import CONFIG, SIZE, write_both
from stagecraft.tests.comfy.model_folder import model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of CnC files: both fusers with random weights, each alone, and the local one as it starts."""
    folder = tmp_path_factory.mktemp("cnc")
    fresh = LocalFuser(CONFIG).state_dict()
    local, looks = write_both(folder / "both.safetensors")
    write_fusers(folder / "looks.safetensors", None, looks.state_dict())
    write_fusers(folder / "fresh.safetensors", fresh, None, 32)
    write_fusers(folder / "wrong_heads.safetensors", local.state_dict(), None)
    with model_folder(CNC, folder, first=True):
        yield folder


@pytest.fixture(scope="module")
def cnc(folder):
    return load_cnc("both.safetensors")


@pytest.fixture(scope="module")
def prompts(clip):
    """The negative one is two chunks long, so that ComfyUI has to pad."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a dog", "bad " * 90)]


@pytest.fixture(scope="module")
def depths():
    return torch.rand(2, 1, 8 * SIZE[0], 8 * SIZE[1], 1, generator=torch.Generator().manual_seed(1)).expand(
        -1, -1, -1, -1, 3
    )
