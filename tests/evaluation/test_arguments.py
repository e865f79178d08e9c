"""What `stage.py evaluate` paints, and which files it writes."""

import argparse

import pytest
from stagecraft.commands.messages import SetupProblem
from stagecraft.evaluation import arguments, cli, layouts
from stagecraft.evaluation.graphs import sali
from stagecraft.evaluation.graphs.methods import METHODS
from stagecraft.evaluation.judging.scoring import spread
from stagecraft.evaluation.result_rows import RESULTS
from stagecraft.evaluation.two_networks.evaluate import NETWORKS


def options(*given: str) -> argparse.Namespace:
    return arguments.parse(given)


def test_what_a_run_paints():
    def chosen(*given):
        return arguments.chosen_methods(options(*given))

    perfect = layouts.PERFECT
    assert chosen() == [*METHODS, perfect, "base"]
    assert chosen("--tuning") == [*METHODS, perfect]
    assert chosen("--ablation") == [*METHODS, *arguments.VARIANTS, perfect, "base"]
    assert chosen("sali") == list(sali.COMPARED)
    assert chosen("chen") == ["chen"]
    assert chosen("plain", "--ablation") == ["plain", "lrdiff", *arguments.VARIANTS]
    assert chosen("base", "lrdiff") == ["lrdiff", "base"]


def groups(*given: str) -> dict[str, tuple[str, ...]]:
    asked = options(*given)
    return {group.name: group.methods for group in arguments.groups_of(arguments.chosen_methods(asked), asked)}


def test_comparisons_have_files_of_their_own():
    assert groups() == {"layouts": (*METHODS, layouts.PERFECT)}
    assert groups("--ablation", "sali", "perfect", *METHODS) == {
        "layouts": (*METHODS, layouts.PERFECT),
        "ablation": ("lrdiff", *arguments.VARIANTS),
        "sali": sali.COMPARED,
    }
    assert groups("lrdiff", *arguments.VARIANTS, "chen") == {"ablation": arguments.ABLATED, "others": ("chen",)}
    assert groups("plain", "base") == {"others": ("plain",)} and groups("base") == {}


def test_only_full_runs_replace_the_committed_results(tmp_path):
    def file(name, *given):
        return arguments.file_of(name, options(*given))

    assert file("layouts") == RESULTS / "layouts.json" and file("others") is None
    assert file("base", "base") == RESULTS / "base.json"
    for part in (["--layouts", "3"], ["--tuning"]):
        assert file("layouts", *part) is file("base", *part) is file(NETWORKS, *part) is None
        assert list(groups(*part)) == ["others"]
        assert file("others", *part, "--json", str(tmp_path / "x.json")) == tmp_path / "x.json"
    assert list(groups("--json", "x.json", "--ablation")) == ["others"]  # one file has one group
    assert (
        file("sweeps", "--sweep", "end_at")
        == file("sweeps", "--sweep", "end_at", "--tuning")
        == RESULTS / "sweeps.json"
    )
    assert file("sweeps", "--sweep", "end_at", "--layouts", "1") is None


def test_results_go_where_they_belong(tmp_path):
    rows = {
        "provenance": [{"commit": "a"}],
        "rows": [{"method": "plain"}],
        "comparisons": [],
        "measures": [{"name": "x"}],
    }
    results = {"layouts": rows, "base": rows, "others": rows, "cnc": {"rows": []}}
    written = cli.result_files(results, options())
    assert [path.name for path, _ in written] == ["layouts.json", "base.json"]  # the comparison of cnc is not whole
    assert cli.result_files(results, options("--layouts", "3")) == []
    ((path, content),) = cli.result_files(results, options("--json", str(tmp_path / "x.json"), "--layouts", "3"))
    assert path == tmp_path / "x.json"
    assert content == {"provenance": [{"commit": "a"}], "rows": 3 * rows["rows"], "measures": 3 * rows["measures"]}


def test_files_of_pictures_lie_beside_their_results_and_are_shared_by_one_file(tmp_path, capsys):
    asked = options("plain", "base", "--json", str(tmp_path / "x.json"), "--seeds", "2")
    files = cli.Records(asked, ["plain", "base"])
    assert files.of("others") is files.of("base") and files.of("base").path == tmp_path / "x.jsonl"
    assert files.of("base").provenance["settings"] == {"layouts": "all", "seeds": 2, "tuning": False}
    assert set(files.of("base").provenance["weights"]) == {"checkpoint", "segmenter", "CLIP"}
    files = cli.Records(options("plain", NETWORKS, "--layouts", "1"), ["plain", NETWORKS])
    assert files.of("others").path is None and files.of("others") is not files.of(NETWORKS)
    assert ["transformer" in files.of(name).provenance["weights"] for name in ("others", NETWORKS)] == [False, True]
    files = cli.Records(options("plain", NETWORKS, "--json", str(tmp_path / "x.json")), ["plain", NETWORKS])
    assert "transformer" in files.of("others").provenance["weights"]  # one file for all
    assert capsys.readouterr().out == ""


def test_a_file_of_another_run_is_refused_before_anything_is_painted(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"provenance":{"code":"another"}}\n')
    with pytest.raises(SetupProblem, match="code: another, now .*--anew"):
        cli.main(["perfect", "--json", str(tmp_path / "x.json")])


def test_a_part_of_a_set_keeps_its_categories():
    rows = [category for category in "abcde" for _ in range(8)]
    assert sorted(set(spread(rows, 5))) == list("abcde")
    assert spread(rows, None) == spread(rows, 99) == rows
    assert len(spread(rows, 7)) == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ["lrdif"],
        ["--layouts", "0"],
        ["plain", "--seeds", "0"],
        ["--sweep", "to"],
        ["plain", "--sweep", "end_at"],
        ["--sweep", "end_at", "--ablation"],
        ["--json", "x.jsonl"],
    ],
)
def test_wrong_arguments_end_with_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "stage.py evaluate: error:" in capsys.readouterr().err


def test_sweeps_are_kept_by_their_file():
    every = arguments.sweeps_by_file([arguments.ALL])
    assert list(every) == ["sweeps", "sali_sweeps"] and sum(map(len, every.values())) == len(arguments.sweeps.SWEEPS)
    assert arguments.sweeps_by_file([arguments.SALI]) == {"sali_sweeps": every["sali_sweeps"]}
    assert arguments.sweeps_by_file(["background", "end_at"]) == {"sweeps": ("end_at",), "sali_sweeps": ("background",)}
