"""Where the cache lies on each system, and that two set-ups never run at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest
from stagecraft.commands.cache import cache_folder, locked
from stagecraft.commands.environment import CLONE
from stagecraft.commands.messages import SetupProblem

HOME = Path("/home/ann") if sys.platform != "win32" else Path("C:/Users/ann")


def absolute(name):
    return str(HOME / name)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/stagecraft"),
        ("linux", {"XDG_CACHE_HOME": absolute("xdg")}, "xdg/stagecraft"),
        ("linux", {"XDG_CACHE_HOME": "relative/does/not/count"}, ".cache/stagecraft"),
        ("darwin", {"XDG_CACHE_HOME": absolute("xdg")}, "Library/Caches/stagecraft"),
        ("win32", {"LOCALAPPDATA": absolute("Local")}, "Local/stagecraft"),
        ("win32", {}, "AppData/Local/stagecraft"),
        ("linux", {"STAGECRAFT_CACHE": absolute("mine"), "XDG_CACHE_HOME": absolute("xdg")}, "mine"),
        ("darwin", {"STAGECRAFT_CACHE": absolute("mine")}, "mine"),
        ("win32", {"STAGECRAFT_CACHE": absolute("mine"), "LOCALAPPDATA": absolute("Local")}, "mine"),
        ("linux", {"STAGECRAFT_CACHE": ""}, ".cache/stagecraft"),
    ],
)
def test_each_platform_has_its_own_cache_folder(platform, variables, expected):
    assert cache_folder(platform, variables, HOME) == HOME / PurePosixPath(expected)


def test_a_relative_cache_folder_is_refused():
    with pytest.raises(SetupProblem, match="STAGECRAFT_CACHE is 'here', but it must be an absolute path"):
        cache_folder("linux", {"STAGECRAFT_CACHE": "here"}, HOME)


HOLDER = """
import sys, time
sys.path.insert(0, {clone!r})
from pathlib import Path
from commands.cache import locked
with locked(Path({path!r})):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_waits_and_a_killed_one_frees_the_lock(tmp_path):
    path = tmp_path / "deeper" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(clone=str(CLONE), path=str(path))], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline().strip() == b"held"
        lines, started = [], time.monotonic()

        def report(line):
            lines.append(line)
            holder.kill()

        with locked(path, report, poll=0.05):
            assert holder.wait(timeout=10) != 0
        assert lines == ["another Stagecraft set-up is running; waiting until it is done"]
        assert time.monotonic() - started < 30
    finally:
        holder.kill()
        holder.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks that are inherited")
def test_a_pip_that_outlives_its_set_up_keeps_the_lock(tmp_path):
    orphan = (
        "import subprocess; "
        "nothing = subprocess.DEVNULL; "
        "print(subprocess.Popen(['sleep', '60'], close_fds=False, stdout=nothing, stderr=nothing).pid, flush=True)"
    )
    script = HOLDER.format(clone=str(CLONE), path=str(tmp_path / "lock")).replace("time.sleep(60)", orphan)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    process = int(done.stdout.split()[1])
    told = []

    def report(line):
        told.append(line)
        os.kill(process, signal.SIGKILL)

    with locked(tmp_path / "lock", report, poll=0.05):
        assert told


def test_a_free_lock_is_taken_at_once_and_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", pytest.fail):
            pass
