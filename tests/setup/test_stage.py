"""stage.py as a user runs it: in a process of its own."""

import ast
import os
import subprocess
import sys

import pytest
from stagecraft.commands.environment import CLONE

STAGE = CLONE / "stage.py"
SPLIT = "import stage, sys; print(stage.split(sys.argv[1:]))"


def run(*arguments, **variables):
    command = [sys.executable, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "STAGECRAFT_"))}
    return subprocess.run(
        command,
        cwd=CLONE,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_names_every_command_and_sets_nothing_up(tmp_path):
    done = run(STAGE, "--help", STAGECRAFT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0
    for command in ("demo", "serve", "test", "fuzz", "evaluate", "train", "bench"):
        assert f"\n    {command} " in done.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [("demo", "--output"), ("demo", "--only"), ("serve", "--port"), ("test", "pytest"), ("fuzz", "--seed")],
)
def test_commands_explain_themselves_before_anything_is_set_up(tmp_path, command, option):
    done = run(STAGE, command, "--help", STAGECRAFT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0
    assert option in done.stdout
    assert "--comfyui" in done.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("arguments", [["perform"], [], ["demo", "--port", "1"], ["serve", "--port", "x"]])
def test_wrong_arguments_are_refused_before_anything_is_set_up(tmp_path, arguments):
    done = run(STAGE, *arguments, STAGECRAFT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["evaluate", "lrdiff", "--layouts", "3", "--help"],
            ("evaluate", None, ["lrdiff", "--layouts", "3", "--help"]),
        ),
        (["train", "--comfyui", "git", "unet", "-h"], ("train", "git", ["unet", "-h"])),
        (["bench", "--json", "a b.json", "--comfyui=/c d"], ("bench", "/c d", ["--json", "a b.json"])),
        (["test", "-k", "not slow", "tests/core", "--co"], ("test", None, ["-k", "not slow", "tests/core", "--co"])),
        (["fuzz", "--seed", "3", "--comfyui", "git"], ("fuzz", "git", ["--seed", "3"])),
        (["demo", "--only", "x", "--comfyui", "/c"], ("demo", "/c", ["--only", "x"])),
        (["serve"], ("serve", None, [])),
    ],
)
def test_everything_else_is_passed_through_in_order(arguments, expected):
    done = run("-c", SPLIT, *arguments)
    assert done.stdout.strip() == repr(expected), done.stderr


def test_a_problem_is_one_sentence_and_no_traceback(tmp_path):
    done = run(STAGE, "demo", "--comfyui", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("stage.py: --comfyui names ")
    assert done.stderr.count("\n") == 1


def test_without_a_network_the_real_pip_ends_in_one_sentence(tmp_path):
    nobody_listens_here = "http://127.0.0.1:9/simple"
    done = run(
        STAGE,
        "test",
        STAGECRAFT_CACHE=str(tmp_path / "cache"),
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=nobody_listens_here,
    )
    assert done.returncode == 1
    assert "stage.py: pip could not reach its package index; connect this machine" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "cache").glob("environment-*/setup.log"))
    assert not list((tmp_path / "cache").glob("environment-*/complete.json"))


def test_it_parses_on_pythons_that_it_refuses():
    ast.parse(STAGE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_the_launcher_runs_a_module_whatever_the_clone_is_called(tmp_path):
    clone = tmp_path / "a clone-of.ours"
    clone.mkdir()
    (clone / "commands").symlink_to(CLONE / "commands", target_is_directory=True)
    launcher = clone / "commands" / "launcher.py"
    done = run(launcher, "commands.test", "--version")
    assert done.returncode == 0, done.stderr
    assert "pytest" in done.stdout
    done = run(launcher, "commands.demo")
    assert done.returncode == 1
    assert done.stderr.startswith("stage.py: ")
    assert done.stderr.count("\n") == 1
