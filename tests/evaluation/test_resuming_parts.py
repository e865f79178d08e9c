"""Compose and Conquer and TCIG go on where they were stopped, with the control and without it."""

import io
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from stagecraft.evaluation.arguments import file_of, parse
from stagecraft.evaluation.compose_and_conquer import evaluate as cnc
from stagecraft.evaluation.compose_and_conquer import hidden as cnc_hidden
from stagecraft.evaluation.compose_and_conquer import looks as cnc_looks
from stagecraft.evaluation.compose_and_conquer import order as cnc_order
from stagecraft.evaluation.compose_and_conquer.graphs import CnC
from stagecraft.evaluation.compose_and_conquer.painter import CNC, Methods
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.result_rows import RESULTS
from stagecraft.evaluation.sets.sets import TUNING_SET
from stagecraft.evaluation.tcig import evaluate as tcig
from stagecraft.evaluation.tcig import sweep as tcig_sweep
from stagecraft.sticker_world.world.concepts import CANVAS

HEADER = {"code": "1"}


class Painter:
    """Pictures that follow from the graph, as those of a server do, until it is stopped."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.painted, self.left, self.server = 0, stop_after, self

    def upload(self, picture: np.ndarray) -> str:
        return f"{picture.astype(float).sum()}.png"

    def paint_prompt(self, prompt: str, seed: int):
        return ([self.picture(prompt, seed)], 1.5, 40) if prompt != "warm-up" else None

    def paint_counted(self, graph: dict):
        return [self.picture(json.dumps(graph))], 1.5, 40

    def paint_graph(self, graph: dict):
        return [self.picture(json.dumps(graph))], 1.5

    def run(self, graph: dict, timeout: float):
        shown = {}
        for node in graph:
            if graph[node]["class_type"] == "PreviewImage":
                buffer = io.BytesIO()
                Image.fromarray(self.picture(json.dumps(graph), node, count=False)).save(buffer, "PNG")
                shown[node] = [buffer.getvalue()]
        self._count()
        return SimpleNamespace(images=shown, seconds=2.5)

    def _count(self) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left, self.painted = self.left - 1, self.painted + 1

    def picture(self, *asked: object, count: bool = True) -> np.ndarray:
        if count:
            self._count()
        rng = np.random.default_rng(list(repr(asked).encode()))
        return np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((CANVAS // 8, CANVAS // 8, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def run_cnc(folder, yardsticks, painter, single):
    kept, records = [], PictureRecords(folder / "cnc.jsonl", HEADER)
    methods = Methods({CNC: CnC()}, CnC(file="control") if single else None)
    asked = cnc.Asked(list(cnc.PARTS), 1, tuning=False)
    run = cnc.Run(painter, methods, yardsticks, asked, records, lambda name, _: kept.append(name))
    return cnc.evaluate(run), kept


@pytest.mark.parametrize("single", [True, False], ids=["with the control", "without it"])
def test_compose_and_conquer_goes_on(yardsticks, tmp_path, single):
    whole = Painter()
    results, kept = run_cnc(tmp_path / "whole", yardsticks, whole, single)
    extra = 1 if single else 0  # the control's pictures: both orders, three places of a foreground, one scene
    assert whole.painted == (7 + 6 + 2 + 8) + extra * (2 + 3 + 1) and len(kept) == len(set(kept))
    rows = {(row["set"], row["method"]) for row in results["rows"]}
    assert ((cnc_hidden.SETS["aside"], cnc_order.SINGLE) in rows) == single
    assert cnc.is_whole(results) == single
    assert {row["set"] for row in results["comparisons"] if row["against"] == cnc_order.SINGLE} == (
        {cnc_order.SET, *cnc_hidden.SETS.values(), "cnc_reconstruction"} if single else set()
    )
    # one picture of the prompt alone is judged both ways
    plain = [row for row in results["rows"] if (row["set"], row["method"]) == (cnc_order.SET, "plain")]
    assert plain[0]["pictures"] == 2
    assert any(measure["name"].startswith("background strength") for measure in results["measures"])
    again = Painter()
    assert run_cnc(tmp_path / "whole", yardsticks, again, single) == (results, []) and again.painted == 0

    file = (tmp_path / "whole" / "cnc.jsonl").read_bytes()
    folder, stop = tmp_path / "stopped", 9 + extra * 3
    with pytest.raises(KeyboardInterrupt):
        run_cnc(folder, yardsticks, Painter(stop), single)
    lines = folder / "cnc.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])  # and half a line of what was painted
    rest = Painter()
    assert run_cnc(folder, yardsticks, rest, single)[0] == results
    assert lines.read_bytes() == file and rest.painted == whole.painted - stop + 1


def test_tcig_goes_on_and_times_only_what_it_timed(yardsticks, tmp_path, monkeypatch):
    few = (tcig.TCIG_NAME, tcig.LAYERED, "tcig_two", tcig.START)
    monkeypatch.setattr(tcig, "METHODS", {name: tcig.METHODS[name] for name in few})
    monkeypatch.setattr(tcig, "model_measures", list)
    item = tcig.masked(TUNING_SET, 1)
    monkeypatch.setattr(tcig, "items_of", lambda layouts, tuning: {TUNING_SET: item})

    def run(folder, painter):
        kept, records = [], PictureRecords(folder / "tcig.jsonl", HEADER)
        size = {"layouts": 1, "seeds": 1, "tuning": True}
        found = tcig.evaluate(painter, yardsticks, records, **size, keep=lambda name, _: kept.append(name))
        return found, kept, records

    whole = Painter()
    results, kept, records = run(tmp_path / "whole", whole)
    assert whole.painted == len(few) + 1 and len(kept) == 2 * len(few) + 2
    general = [line.method for line in records if "judge" not in line.set_name]
    second = {line.method for line in records if "judge" in line.set_name}
    assert set(general) - second == {"tcig_two", "tcig_two draft"}
    again = Painter()
    assert run(tmp_path / "whole", again)[:2] == (results, []) and again.painted == 0

    file = (tmp_path / "whole" / "tcig.jsonl").read_text()
    for stop in (1, 2):  # before the layers, whose draft has to be made again, and after them
        folder = tmp_path / f"stopped {stop}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, Painter(stop))
        found, _, records = run(folder, Painter())
        seconds = {line.method: line.seconds for line in records if "judge" not in line.set_name}
        assert seconds[tcig.LAYERED] == (None if stop == 1 else 2.5) and seconds[tcig.TCIG_NAME] == 2.5
        if stop == 2:
            assert found == results and (folder / "tcig.jsonl").read_text() == file


def test_every_denoise_goes_on(yardsticks, tmp_path, monkeypatch):
    monkeypatch.setattr(tcig_sweep, "SWEPT", (tcig.START, tcig.DRAWING))
    monkeypatch.setattr(tcig_sweep, "SHARES", (0.0, 0.5))

    def run(painter):
        records = PictureRecords(tmp_path / "tcig_sweeps.jsonl", HEADER)
        return tcig_sweep.sweep(painter, yardsticks, records, layouts=1, seeds=1)

    with pytest.raises(KeyboardInterrupt):
        run(Painter(1))
    rest = Painter()
    found = run(rest)
    assert rest.painted == 1 and found["provenance"] == [HEADER]
    points = [(row["method"], row["value"], row["pictures"]) for row in found["rows"]]
    assert points == [(name, value, 1) for name, value in itertools.product(("tcig_start", "drawing"), (0.0, 0.5))]
    assert run(none := Painter()) == found and none.painted == 0


def test_where_the_parts_keep_their_pictures(tmp_path):
    """Whole runs beside the committed results; what is no part of those nowhere, and not mixed with them."""
    for name in (CNC, "tcig", "text2layer"):
        assert file_of(name, parse([name])) == RESULTS / f"{name}.json"
        assert file_of(name, parse([name, "--layouts", "2"])) is None
        assert file_of(name, parse([name, "--tuning"])) is None
    weights = tmp_path / "other.safetensors"
    assert file_of(CNC, parse([CNC, "--fusers", str(weights)])) is None
    assert file_of("tcig_sweeps", parse(["tcig", "--tuning"])) == RESULTS / "tcig_sweeps.json"
    assert file_of("tcig_sweeps", parse(["tcig", "--tuning", "--layouts", "1"])) is None
    for part in (CNC, *cnc.PARTS, cnc_looks.NAMED):
        assert file_of(CNC, parse([part, "--json", str(tmp_path / "x.json")])) == tmp_path / "x.json"
