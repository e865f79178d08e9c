"""The file that keeps the scores of a run's pictures: what it holds, and that a stopped run goes on."""

import json
import subprocess

import numpy as np
import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.commands.messages import SetupProblem
from stagecraft.core.scores.layout_score import RegionScore
from stagecraft.evaluation.records import checkout, provenance
from stagecraft.evaluation.records.lines import PictureLine, RegionLine, picture_line
from stagecraft.evaluation.records.pictures import PictureRecords, read_lines, records_of
from stagecraft.evaluation.summary.rows import summary_rows

HEADER = {"commit": "a", "date": "now", "code": "1", "weights": {"CLIP": "2"}, "settings": {"layouts": 3}}
FOUND = RegionScore("a dog", "dog", (0, 0, 1, 1), (0.1, 0, 0.9, 1), 0.87654321, 0.8, 2 / 3, 0.0, True)
LOST = RegionScore("a cat", "cat", (0, 0, 1, 1), None, 0.0, 0.0, None, None, False)


def line(number: int, method: str = "lrdiff") -> PictureLine:
    features = np.linspace(-1, 1, 96) * (number + 1)
    regions = tuple(map(RegionLine.of, (FOUND, LOST) if number % 2 else (FOUND, FOUND)))
    scores = {"clip": 0.1 * number, "features": features, "seconds": 1 / 3, "evaluations": 40}
    present = all(region.present for region in regions)
    of_item = {"tags": ("boxes", "small"), "objects": 2, "present": present, "regions": regions}
    return picture_line(method, "objects_2", 70_010_000 + number // 2, number % 2, **of_item, **scores)


LINES = [line(number) for number in range(6)]


def write(path, lines=LINES, header=HEADER) -> bytes:
    records = PictureRecords(path, header)
    for each in lines:
        records.add([each])
    return path.read_bytes()


def test_a_line_comes_back_as_it_was():
    measured = picture_line("plain", "edits", 7, measures={"PSNR": 1 / 3, "IoU": np.float32(0.5), "not there": None})
    assert measured.measures == {"PSNR": 0.333333, "IoU": 0.5}
    for each in (*LINES, picture_line("plain", "presence_1", 7, present=np.True_), measured):
        again = PictureLine.from_json(json.loads(each.to_text()))
        assert again.to_text() == each.to_text() and again.key == each.key
        kept = [{k: v for k, v in vars(one).items() if k != "features"} for one in (each, again)]
        assert kept[0] == kept[1]
        assert np.array_equal(each.features, again.features) if each.features is not None else again.features is None
    assert len(LINES[0].to_text()) < 700
    assert np.abs(LINES[5].features - 6 * np.linspace(-1, 1, 96)).max() < 0.003
    with pytest.raises(ValueError, match="not JSON compliant"):
        picture_line("plain", "presence_1", 7, clip=float("nan")).to_text()


def test_lines_are_on_disk_as_they_are_added(tmp_path):
    path = tmp_path / "new" / "run.jsonl"
    records = PictureRecords(path, HEADER)
    assert not path.exists()  # an old file stays until there is something to replace it
    for number, each in enumerate(LINES, 1):
        records.add([each, each])
        header, found, size = read_lines(path)
        assert (header, len(found), size) == (HEADER, number, path.stat().st_size)
    assert records.has_all(each.key for each in LINES) and line(0, "plain").key not in records


def test_a_run_stopped_at_any_byte_ends_with_the_same_file(tmp_path):
    whole = write(tmp_path / "whole.jsonl")
    rows = summary_rows(PictureRecords(tmp_path / "whole.jsonl", HEADER), ["objects_2"], ["lrdiff"])
    path = tmp_path / "stopped.jsonl"
    ends = [at + near for at, byte in enumerate(whole) if byte == ord("\n") for near in (-1, 0, 1, 2)]
    for size in sorted({*range(0, len(whole) + 1, 29), *(end for end in ends if end <= len(whole))}):
        path.write_bytes(whole[:size])
        records = PictureRecords(path, HEADER | {"commit": "b", "date": "later"})
        assert len(records) == max(whole[:size].count(b"\n") - 1, 0)
        records.add(each for each in LINES if each.key not in records)
        if size > whole.index(b"\n"):
            assert path.read_bytes() == whole
        else:  # not even its first line was whole, so it is another run
            assert path.read_bytes().split(b"\n")[1:] == whole.split(b"\n")[1:]
    assert summary_rows(PictureRecords(path, HEADER), ["objects_2"], ["lrdiff"]) == rows


def test_pictures_of_another_run_are_not_mixed_with_new_ones(tmp_path):
    path = tmp_path / "run.jsonl"
    before = write(path)
    other = HEADER | {"weights": {"CLIP": "3"}, "settings": {"layouts": 40}}
    with pytest.raises(SetupProblem, match=r"weights CLIP: 2, now 3; settings layouts: 3, now 40.*--anew"):
        PictureRecords(path, other)
    assert path.read_bytes() == before
    records = PictureRecords(path, other, anew=True)
    assert len(records) == 0 and path.read_bytes() == before
    records.add(LINES[:1])
    assert read_lines(path)[0] == other and len(read_lines(path)[1]) == 1


@pytest.mark.parametrize(
    "text", ["not JSON", "{}\n", "[1]\n", '{"provenance": 3}\n', '{"provenance": {}}\n{"set": 1}\n']
)
def test_another_file_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(SetupProblem, match=r"Line [12] of .*run.jsonl is not what evaluate writes"):
        PictureRecords(path, {})
    assert path.read_text() == text


def test_records_without_a_file_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = PictureRecords(None, HEADER)
    records.add(LINES)
    assert [each.key for each in records] == [each.key for each in LINES] and not list(tmp_path.iterdir())
    assert records_of(tmp_path / "layouts.json") == tmp_path / "layouts.jsonl"


def test_digests_follow_content_and_place(tmp_path):
    for name, content in {"a.py": b"x\n", "b.py": b"x\r\n", "c.safetensors": b"x\r\n"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "a.py").write_bytes(b"x\r\n")
    of = provenance.digest
    assert of([tmp_path / "a.py"], tmp_path) == of([tmp_path / "again" / "a.py"], tmp_path / "again")
    assert of([tmp_path / "a.py"], tmp_path) != of([tmp_path / "b.py"], tmp_path)
    before = provenance.weights_digest(tmp_path)
    (tmp_path / "c.safetensors").write_bytes(b"x\n")
    assert provenance.weights_digest(tmp_path) != before
    assert provenance.weights_digest(tmp_path / "none") is None


def test_code_that_is_measured_has_a_digest_of_its_own(tmp_path):
    for name in (*provenance.CODE, "evaluation/pages", "evaluation/judging/training"):
        path = tmp_path / name if name.endswith(".py") else tmp_path / name / "file.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    before = provenance.code_digest(tmp_path)
    for unmeasured in ("evaluation/pages", "evaluation/judging/training"):
        (tmp_path / unmeasured / "file.py").write_text("y")
    assert provenance.code_digest(tmp_path) == before
    (tmp_path / "core" / "file.py").write_text("y")
    assert provenance.code_digest(tmp_path) != before
    assert all((CLONE / name).exists() for name in provenance.CODE)


def test_a_run_says_where_its_numbers_come_from(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"w")
    found = provenance.provenance({"checkpoint": tmp_path / "weights.safetensors"}, {"seeds": 2})
    assert set(found) == {"commit", "date", "code", "weights", "versions", "settings"}
    assert set(found["versions"]) == {"torch", "ComfyUI", "Python", "device"} and all(found["versions"].values())
    assert len(found["weights"]["checkpoint"]) == len(found["code"]) == provenance.DIGITS
    assert provenance.differences(found, found | {"date": "x", "commit": None}) == []
    assert json.loads(json.dumps(found)) == found


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits, of which the second changed core; gives their names."""
    monkeypatch.setattr(checkout, "CLONE", tmp_path)
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def commit(path: str) -> str:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
        subprocess.run(["git", "-C", tmp_path, "add", "-A"], check=True)
        subprocess.run(["git", "-C", tmp_path, *names, "commit", "-qm", "x"], check=True)
        return checkout.git("rev-parse", "HEAD")

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return [commit("nodes/a.py"), commit("core/a.py")]


def test_a_commit_is_dirty_by_code_but_not_by_results(repository, tmp_path):
    assert checkout.commit() == repository[1]
    (tmp_path / "evaluation" / "results").mkdir(parents=True)
    (tmp_path / "evaluation" / "results" / "layouts.jsonl").write_text("x")
    assert checkout.commit() == repository[1]
    (tmp_path / "core" / "a.py").write_text("y")
    assert checkout.commit() == repository[1] + "-dirty"


def test_what_has_changed_since_a_commit(repository, tmp_path):
    first, second = repository
    assert checkout.has_changed(first, ["core"]) is True
    assert checkout.has_changed(first, ["nodes"]) is checkout.has_changed(second, ["core"]) is False
    assert checkout.has_changed(second + "-dirty", ["core"]) is checkout.has_changed(40 * "0", ["core"]) is None


def test_without_a_repository_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "CLONE", tmp_path)
    assert checkout.commit() is checkout.has_changed("a", ["core"]) is None
