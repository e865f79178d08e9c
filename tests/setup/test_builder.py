"""The environment is made once, found broken when it is, and repaired with as little work as possible."""

import json
import shutil

import pytest
from stagecraft.commands import builder as builder_module
from stagecraft.commands.builder import Builder, check_python, python_runs
from stagecraft.commands.messages import SetupProblem
from stagecraft.commands.pip_install import explain_failure, site_packages

EVERYTHING = ["python", "comfyui", "install torch", "install the rest"]
REPAIR = ["install torch", "install the rest"]


@pytest.fixture
def lines():
    return []


@pytest.fixture
def builder(tmp_path, installer, lines):
    return Builder(tmp_path / "cache" / "environment-1", installer, lambda folder: 100 * 1024**3, lines.append)


@pytest.fixture
def built(builder, lines):
    builder.ensure()
    builder.installer.calls.clear()
    lines.clear()
    return builder


def test_the_first_start_makes_everything_and_says_so(builder, lines):
    builder.ensure()
    assert builder.installer.calls == EVERYTHING
    assert builder.problem() is None
    assert python_runs(builder.python, "import torch, pytest")
    assert "once for all clones" in lines[0]
    assert lines[1:] == [
        "[1/4] making a virtual environment, about 10 seconds",
        "[2/4] fetching ComfyUI 0.3.75, about 10 seconds",
        "[3/4] installing PyTorch, about 2 minutes",
        "[4/4] installing what ComfyUI and the tests need, about 60 seconds",
    ]


def test_only_comfyui_itself_is_unpacked(built):
    files = {path.relative_to(built.comfyui).as_posix() for path in built.comfyui.rglob("*") if path.is_file()}
    assert {"main.py", "comfy/__init__.py", "requirements.txt"} < files
    assert not {"extra_model_paths.yaml", "__init__.py"} & files


def test_the_second_start_does_nothing(built, lines):
    built.ensure()
    assert built.installer.calls == []
    assert lines == []


def delete(path):
    path.unlink()


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [delete, shorten])
@pytest.mark.parametrize("name", ["torch/__init__.py", "numpy/data.txt"])
def test_a_damaged_package_is_installed_again(built, lines, damage, name):
    path = site_packages(built.venv) / name
    before = path.read_bytes()
    damage(path)
    assert built.problem() == f"{name} of {name.split('/')[0]}-1.0 is damaged"
    built.ensure()
    assert path.read_bytes() == before
    assert built.installer.calls == REPAIR
    assert built.problem() is None
    assert lines[0].startswith("repairing the environment")
    # Only what really is installed again takes its time.
    assert lines[1] == f"[3/4] installing PyTorch, about {'2 minutes' if 'torch' in name else '5 seconds'}"


def test_a_package_without_its_record_is_installed_again(built):
    info = site_packages(built.venv) / "scipy-1.0.dist-info"
    (info / "RECORD").unlink()
    assert built.problem() == "RECORD of scipy-1.0 is damaged"
    built.ensure()
    assert (info / "RECORD").exists()
    assert built.installer.calls == REPAIR


def test_a_package_that_vanished_is_installed_again(built):
    folder = site_packages(built.venv)
    shutil.rmtree(folder / "einops")
    shutil.rmtree(folder / "einops-1.0.dist-info")
    assert built.problem() == "einops-1.0 is missing"
    built.ensure()
    assert python_runs(built.python, "import einops")


@pytest.mark.parametrize("marker", [None, "", "[]", '{"packages": null}', '{"packag'])
def test_a_missing_or_broken_marker_means_not_finished(built, marker):
    path = built.folder / "complete.json"
    path.unlink() if marker is None else path.write_text(marker)
    assert built.problem() == "the set-up was not finished"
    built.ensure()
    assert built.installer.calls == REPAIR
    assert "torch-1.0" in json.loads(path.read_text())["packages"]


@pytest.mark.parametrize("step", EVERYTHING)
def test_an_interrupted_set_up_is_continued(builder, step):
    builder.installer.fail_at = step
    with pytest.raises(SetupProblem, match=f"{step} failed"):
        builder.ensure()
    assert builder.problem() == "the set-up was not finished"
    builder.installer.fail_at = ""
    builder.installer.calls.clear()
    builder.ensure()
    done_before = EVERYTHING[: min(EVERYTHING.index(step), 2)]
    assert builder.installer.calls == [call for call in EVERYTHING if call not in done_before]
    assert builder.problem() is None


def test_an_interrupted_repair_is_not_taken_for_whole(built):
    delete(site_packages(built.venv) / "scipy" / "data.txt")
    built.installer.fail_at = "install torch"
    with pytest.raises(SetupProblem):
        built.ensure()
    assert built.problem() is not None


def test_a_python_that_does_not_run_is_made_anew(built):
    built.python.unlink()
    assert built.problem() == "its Python does not run"
    built.ensure()
    assert built.installer.calls == ["python", *REPAIR]
    assert built.problem() is None


def test_a_damaged_pip_cannot_repair_itself_so_all_is_made_anew(built):
    delete(site_packages(built.venv) / "pip" / "data.txt")
    built.ensure()
    assert built.installer.calls == ["python", *REPAIR]


@pytest.mark.parametrize("name", ["main.py", "comfy/__init__.py", ".stagecraft-files.json"])
def test_a_damaged_comfyui_is_unpacked_again(built, name):
    delete(built.comfyui / name)
    assert built.problem() == f"ComfyUI's {name} is damaged"
    built.ensure()
    assert built.installer.calls == ["comfyui", *REPAIR]
    assert (built.comfyui / name).exists()


def test_what_stays_broken_is_made_anew_once_and_then_reported(built, monkeypatch):
    monkeypatch.setattr(built.installer, "fetch_comfyui", lambda *_: built.installer.calls.append("comfyui"))
    delete(built.comfyui / "main.py")
    with pytest.raises(SetupProblem, match="still broken after a repair .*main.py is damaged.*delete that folder"):
        built.ensure()
    assert built.installer.calls == ["comfyui", *REPAIR, "python", "comfyui", *REPAIR]


def test_too_little_disk_space_is_said_before_anything_is_written(tmp_path, installer):
    builder = Builder(tmp_path / "cache" / "environment-1", installer, lambda folder: 2 * 1024**3, lambda line: None)
    with pytest.raises(SetupProblem) as problem:
        builder.ensure()
    assert f"GiB on the disk of {tmp_path / 'cache'}, which has 2.0 GiB free" in str(problem.value)
    assert "STAGECRAFT_CACHE" in str(problem.value)
    assert installer.calls == []
    assert not builder.folder.exists()


def test_a_repair_does_not_ask_for_the_space_of_a_whole_set_up(built):
    (built.folder / "complete.json").unlink()
    Builder(built.folder, built.installer, lambda folder: 0, lambda line: None).ensure()


@pytest.mark.parametrize("version", [(3, 9, 18), (2, 7, 18), (3, 15, 0)])
def test_a_wrong_python_is_told_the_right_ones(version):
    found = f"{version[0]}.{version[1]}"
    with pytest.raises(SetupProblem, match=f"^Stagecraft needs Python 3.10 to 3.14, but this is Python {found}.$"):
        check_python(version)


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 14, 2)])
def test_both_ends_of_the_range_of_pythons_are_accepted(version):
    check_python(version)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\n",
            "could not reach its package index",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk is full"),
        ("ERROR: No matching distribution found for av==18.1.0\n", "No matching distribution found for av==18.1.0"),
        ("Killed\n", "it gave no reason"),
    ],
)
def test_a_failure_of_pip_becomes_one_sentence(tmp_path, output, sentence):
    text = explain_failure(output, tmp_path / "setup.log")
    assert sentence in text
    assert "\n" not in text
    assert str(tmp_path) in text


def test_the_real_installer_is_the_default(tmp_path):
    assert isinstance(Builder(tmp_path).installer, builder_module.PipInstaller)
