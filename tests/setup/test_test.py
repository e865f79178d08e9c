"""`python stage.py test` before pytest: what ruff is asked, and what is said where it finds something."""

import pytest
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


def test_ruff_is_left_out_where_pytest_is_told_what_to_run(monkeypatch):
    monkeypatch.setattr(command.subprocess, "call", lambda arguments: pytest.fail("ruff ran"))
    monkeypatch.setattr(pytest, "main", lambda arguments: 0)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main(["tests/core"]) == 0
