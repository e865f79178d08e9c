"""`.ci/run` on bare machines: what it cannot install is said, and the tests run all the same."""

import os
import shutil
import subprocess

import pytest
from stagecraft.commands.environment import CLONE

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs bash")


@pytest.fixture
def machine(tmp_path):
    """Runs `.ci/run` where only the given commands exist; the tests and every command say how they were called."""

    def run(user, **commands):
        commands = {"id": f"echo {user}", "python3": 'echo "tests: $* $STAGECRAFT_NEEDS_BROWSER"'} | commands
        for name, text in commands.items():
            (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/log"\n{text}\n')
            (tmp_path / name).chmod(0o755)
        for name in ("bash", "dirname", "env"):
            (tmp_path / name).symlink_to(shutil.which(name))
        done = subprocess.run(
            [tmp_path / "bash", CLONE / ".ci" / "run", "-x"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done, (tmp_path / "log").read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        (0, {"apt-get": "exit 100"}),  # offline
        (0, {"apt-get": '[ "$1" = update ]'}),  # no such package
        (1000, {"apt-get": "exit 0"}),  # no sudo
        (1000, {"apt-get": "exit 0", "sudo": "exit 1"}),  # sudo wants a password
    ],
)
def test_the_tests_run_where_chromium_cannot_be_installed(machine, user, commands):
    done, calls = machine(user, **commands)
    assert (done.returncode, done.stdout) == (0, "tests: stage.py test -x 1\n")
    assert "Chromium could not be installed" in done.stderr
    assert all(call.startswith("sudo -n ") for call in calls if call.startswith("sudo"))


@pytest.mark.parametrize(("user", "sudo"), [(0, "exit 1"), (1000, 'shift; exec "$@"')])
def test_chromium_is_installed_where_it_can_be(machine, user, sudo):
    # Here `update` fails, as it does where one of many package lists is broken.
    done, calls = machine(user, sudo=sudo, **{"apt-get": '[ "$1" = install ]'})
    assert done.returncode == 0 and "could not" not in done.stderr
    assert "apt-get install -y -qq --no-install-recommends chromium" in calls


def test_a_browser_that_is_there_is_taken(machine):
    done, calls = machine(0, chromium="", **{"apt-get": ""})
    assert done.returncode == 0 and not any(call.startswith("apt-get") for call in calls)
