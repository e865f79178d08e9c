"""One real ComfyUI with this pack in it, for all tests of this folder."""

import pytest
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running server; its inputs, outputs and log lie in a temporary folder (`server.base`)."""
    with ComfyServer(current_environment(), CLONE, base=tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server):
    """What the server says about all its nodes."""
    return server.object_info()
