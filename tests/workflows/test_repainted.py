"""Committed scores are those of the code as it is: two layouts painted again by every cheap method."""

import numpy as np
import pytest
from stagecraft.evaluation.graphs.methods import METHODS
from stagecraft.evaluation.judging.scoring import layout_lines, score
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.layouts import PAINTED
from stagecraft.evaluation.painter import Painter, evaluation_server
from stagecraft.evaluation.records.pictures import read_lines, records_of
from stagecraft.evaluation.result_rows import RESULTS
from stagecraft.evaluation.sets.sets import load_set

REPAINTED = {name: "layouts" for name in METHODS} | {"lrdiff_trajectories": "ablation"}  # and the file with its scores
SETS = ("objects_1", "objects_2")  # a layout of each
# Of a mean of two pictures: other processors round otherwise, and twenty steps enlarge that.
CLOSE = 0.1


@pytest.fixture(scope="module")
def painter():
    """A painter on a server of the evaluation."""
    with evaluation_server() as server:
        yield Painter(server)


@pytest.fixture(scope="module")
def judges():
    return Yardsticks.load()


@pytest.fixture(scope="module")
def committed():
    """The committed scores of first pictures, by method, set and layout."""
    files = set(REPAINTED.values())
    lines = [line for file in files for line in read_lines(records_of(RESULTS / f"{file}.json"))[1]]
    return {line.key[:3]: line for line in lines if line.number == 0}


@pytest.mark.parametrize("method", REPAINTED)
def test_two_layouts_painted_again_score_as_committed(painter, judges, committed, method):
    before, now = [], []
    for name in SETS:
        item = next(item for item in load_set(name) if (method, name, item.seed) in committed)
        painted = score(judges, method, name, item, *painter.paint(PAINTED[method], item, 1))
        now += layout_lines(judges, painted, with_features=False)
        before.append(committed[method, name, item.seed])
    assert np.mean([line.clip for line in now]) == pytest.approx(np.mean([line.clip for line in before]), abs=CLOSE)
    found, expected = (np.mean([r.box_iou for line in lines for r in line.regions]) for lines in (now, before))
    assert found == pytest.approx(expected, abs=CLOSE)
    assert [line.present for line in now] == [line.present for line in before]
