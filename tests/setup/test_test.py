"""`python stage.py test` before pytest: what ruff is asked, and what is said where it finds something."""

import os
from types import SimpleNamespace

import psutil
import pytest
import torch
from stagecraft.commands import test as command


@pytest.mark.parametrize(
    ("failing", "mended"), [((), []), (("check",), ["check --fix ."]), (("format",), ["format ."])]
)
def test_ruff_looks_at_code_and_format_and_says_what_mends_them(monkeypatch, capsys, failing, mended):
    asked = []

    def call(arguments):
        asked.append(arguments[3:])
        return int(arguments[3] in failing)

    monkeypatch.setattr(command.subprocess, "call", call)
    assert command.check_code() == bool(failing)
    assert asked == [["check", "."], ["format", "--check", "."]]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("-m ruff ")[2] for line in said] == mended


@pytest.mark.parametrize("device", command.DEVICES)
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, capsys, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(pytest, "main", lambda arguments: pytest.fail("pytest ran"))
    assert command.main(["--device", device, "tests/comfy"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"stage.py: --device {device} needs a GPU") and "leave --device out" in said


@pytest.mark.parametrize("device", command.DEVICES)
def test_a_device_that_is_there_gets_the_tests_that_touch_one(monkeypatch, device):
    asked = []
    monkeypatch.setenv(command.DEVICE, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
    monkeypatch.setattr(pytest, "main", lambda arguments: asked.append(arguments) or 0)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main(["tests/comfy", f"--device={device}", "-q"]) == 0
    assert asked == [["-m", command.MARKER, "tests/comfy", "-q"]] and os.environ[command.DEVICE] == device


def test_ruff_is_left_out_where_pytest_is_told_what_to_run(monkeypatch):
    monkeypatch.setattr(command.subprocess, "call", lambda arguments: pytest.fail("ruff ran"))
    monkeypatch.setattr(pytest, "main", lambda arguments: 0)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main(["tests/core"]) == 0


@pytest.mark.parametrize(
    ("cores", "memory", "processes", "threads"),
    [(2, 20e9, 2, "1"), (8, 16e9, 3, "2"), (16, 4e9, 0, None), (1, 64e9, 0, None)],
)
def test_the_whole_suite_is_shared_out_as_far_as_cores_and_memory_go(monkeypatch, cores, memory, processes, threads):
    monkeypatch.delenv(command.THREADS, raising=False)
    found = command.shared_out(cores, memory)
    assert found == (["-n", str(processes), "--dist", "loadfile"] if processes else [])
    assert os.environ.get(command.THREADS) == threads


def test_whoever_sets_the_threads_keeps_them(monkeypatch):
    monkeypatch.setenv(command.THREADS, "3")
    command.shared_out(8, 64e9)
    assert os.environ[command.THREADS] == "3"


def test_a_kill_reaches_the_processes_that_share_the_suite(monkeypatch):
    stopped = []
    children = [SimpleNamespace(terminate=lambda name=name: stopped.append(name)) for name in "ab"]
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(children=lambda: children))
    with pytest.raises(KeyboardInterrupt):
        command.stop()
    assert stopped == ["a", "b"]
