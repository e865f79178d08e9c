"""Makes the clone importable as the package `stagecraft`, whatever its folder is called."""

import gc
import runpy
import signal
from pathlib import Path

import pytest
from hypothesis import settings

runpy.run_path(str(Path(__file__).resolve().parent.parent / "commands" / "launcher.py"))

# How long an example takes says something about the machine, not about the code.
settings.register_profile("stagecraft", deadline=None)
settings.load_profile("stagecraft")


def pytest_configure(config):
    """A kill of one of the processes that share the suite stops it as Ctrl-C does, with its fixtures' servers."""
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Garbage collections look only at what the tests of this file make.

    ComfyUI collects before it loads a model while an older one still lives without its patcher, as those of fixtures
    do. In a process that has imported everything each of these takes a third of a second, and host tests load often.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
