"""`evaluate editing` and `evaluate split` on a real server: their graphs, and the whole command on one edit."""

import json

import numpy as np
import pytest
from PIL import Image
from stagecraft.evaluation import cli
from stagecraft.evaluation.editing import evaluate as editing
from stagecraft.evaluation.editing import graphs
from stagecraft.evaluation.painter import Painter, evaluation_server, pictures_of
from stagecraft.evaluation.records.pictures import read_lines
from stagecraft.evaluation.sets.edits import EDITS_TUNING, KINDS, MOVE, REPLACE, load_edits
from stagecraft.evaluation.splitting import evaluate as splitting
from stagecraft.evaluation.splitting import peeling


@pytest.fixture(scope="module")
def painter():
    """On a running server of the evaluation."""
    with evaluation_server() as running:
        yield Painter(running)


def test_every_input_of_a_graph_is_known(painter):
    """ComfyUI ignores an input that a node does not have, so a wrong name would change nothing."""
    known = painter.server.object_info()
    files = graphs.Files("a.png", "b.png", "c.png")
    made = [graphs.METHODS[n](load_edits(kind)[0], files) for kind in KINDS for n in graphs.methods_of(kind)]
    for graph in (*made, peeling.graph("a.png", "b.png", "a dog", "", 1)):
        for node in graph.values():
            inputs = known[node["class_type"]]["input"]
            declared = inputs.get("required", {}) | inputs.get("optional", {})
            assert node["inputs"].keys() <= declared.keys(), node["class_type"]
            assert inputs.get("required", {}).keys() <= node["inputs"].keys(), node["class_type"]
            for key, value in node["inputs"].items():
                choices = declared[key][1].get("options") if declared[key][0] == "COMBO" else declared[key][0]
                file = node["class_type"].startswith("LoadImage")
                assert file or not isinstance(choices, list) or value in choices, (node["class_type"], key)


def test_a_pasted_thing_lies_where_the_exact_picture_has_it(painter):
    """What is inpainted afterwards is its old place alone."""
    edit = load_edits(MOVE)[0]
    files = graphs.Files(*(painter.upload(each) for each in (edit.scene.image, edit.old, edit.old)))
    graph = graphs.inpainted(edit, files)
    (pasted,) = (name for name, node in graph.items() if node["class_type"] == "ImageCompositeMasked")
    needed = ("LoadImage", "LoadImageMask", "ImageCrop", "CropMask", "ImageCompositeMasked")
    graph = {name: node for name, node in graph.items() if node["class_type"] in needed}
    graph["pictures"] = {"class_type": "PreviewImage", "inputs": {"images": [pasted, 0]}}
    (picture,) = pictures_of(painter.run(graph))
    assert np.array_equal(picture[~edit.new], edit.scene.image[~edit.new])
    assert np.abs(picture.astype(int) - edit.exact_picture())[edit.new].mean() < 3


def test_the_whole_command_and_going_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(editing, "KINDS", (REPLACE,))
    file, folder = tmp_path / "results.json", tmp_path / "pictures"
    asked = ["editing", "split", "--tuning", "--layouts", "1", "--json", str(file), "--pictures"]
    assert cli.main([*asked, str(folder)]) == 0
    written = json.loads(file.read_text())
    rows = {(row["set"], row["method"]): row for row in written["rows"]}
    assert list(rows) == [
        *(("edits_replace", name) for name in (*graphs.METHODS, editing.EXACT)),
        *((splitting.SET, name) for name in splitting.METHODS),
    ]
    of = {name: rows["edits_replace", name] for name in editing.NAMES}
    assert of["exact"]["PSNR outside"] == 120 and of["exact"]["gone"] == of["exact"]["presence"] == 1
    assert of["vae"]["change"] < 0.1 < of["edit"]["change"]
    assert abs(of["edit"]["PSNR outside"] - of["vae"]["PSNR outside"]) < 1  # the rest of the picture stays as it is
    assert rows[splitting.SET, "cut_out"]["PSNR recomposed"] == 120
    assert of["vae"]["evaluations"] == 0 < of["inpaint"]["evaluations"] == 40 < of["edit"]["evaluations"]
    assert written["provenance"][0]["weights"]["splitting segmenter"]
    names = {path.name for path in folder.glob("*.png")}
    edit = load_edits(REPLACE, EDITS_TUNING)[3]
    assert f"edits_replace_{edit.seed}_given.png" in names and len(names) == 6 + len(splitting.METHODS)
    assert np.array_equal(Image.open(folder / f"edits_replace_{edit.seed}_given.png"), edit.scene.image)

    # Stopped while the last picture's line was written, it paints what that line was of, and nothing else.
    lines, again = file.with_suffix(".jsonl"), tmp_path / "again"
    before = read_lines(lines)[1]
    text = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(text[:-1]) + text[-1][:40])
    assert cli.main([*asked, str(again)]) == 0
    assert [line.measures for line in read_lines(lines)[1]] == [line.measures for line in before]
    assert len(list(again.glob("*.png"))) == 1
