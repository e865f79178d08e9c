"""The demo's own parts: which files, which names, what the table and the contact sheet show."""

import io

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_api import Result
from stagecraft.commands.contact_sheet import contact_sheet, tiled
from stagecraft.commands.demo import Outcome, choose_workflows, save_pictures, score_text, table
from stagecraft.commands.messages import SetupProblem, duration


@pytest.fixture
def workflows(tmp_path):
    for name in ("b_two.json", "a_one.json", "a_one.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def test_all_workflows_run_in_the_order_of_their_names(workflows):
    assert [path.name for path in choose_workflows(workflows, None)] == ["a_one.json", "b_two.json"]


@pytest.mark.parametrize("name", ["b_two", "b_two.json"])
def test_one_workflow_can_be_chosen(workflows, name):
    assert [path.name for path in choose_workflows(workflows, [name])] == ["b_two.json"]


def test_an_unknown_workflow_is_told_the_known_ones(workflows, tmp_path):
    with pytest.raises(SetupProblem, match="no workflow 'c'; there are a_one, b_two"):
        choose_workflows(workflows, ["c"])
    with pytest.raises(SetupProblem, match="no workflow in"):
        choose_workflows(tmp_path / "nothing", None)


PROMPT = {
    "3": {"class_type": "SaveImage", "_meta": {"title": "Save / the picture"}},
    "5": {"class_type": "StageLayoutScore", "_meta": {"title": "Score"}},
}
RESULT = Result({"3": [b"one", b"two"], "5": [b"three"]}, {"3": {}, "5": {"text": ["box IoU 0.71\na dog: 0.7"]}}, 1.5)


def test_pictures_are_named_after_workflow_and_node(tmp_path):
    paths = save_pictures(PROMPT, RESULT, "boxes", tmp_path)
    expected = ["boxes_save_the_picture_1.png", "boxes_save_the_picture_2.png", "boxes_score_3.png"]
    assert [path.name for path in paths] == expected
    assert [path.read_bytes() for path in paths] == [b"one", b"two", b"three"]


def test_the_score_is_the_first_line_of_the_score_node():
    assert score_text(PROMPT, RESULT) == "box IoU 0.71"
    assert score_text({"3": PROMPT["3"]}, Result({}, {"3": {"text": ["not a score"]}}, 0.0)) == ""


def test_the_table_has_a_row_per_workflow(tmp_path):
    outcomes = [Outcome("boxes", [tmp_path] * 2, 3.21, "box IoU 0.71"), Outcome("text", problem="node 3: no\nmodel")]
    lines = table(outcomes).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["boxes", "2", "3.2", "box", "IoU", "0.71", "ok"],
        ["text", "0", "0.0", "-", "FAILED"],
    ]
    assert len({line.rstrip().find("ok") for line in lines[2:3]} | {lines[0].find("result")}) == 1
    assert outcomes[1].line() == "text: FAILED: node 3: no\nmodel"
    assert outcomes[0].line() == "boxes: 2 pictures in 3.2 s, box IoU 0.71"


def test_the_contact_sheet_shows_every_picture_and_caption(tmp_path):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    pictures = []
    for index, colour in enumerate(colours):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (512, 256) if index == 4 else (256, 256), colour).save(path)
        pictures.append((path, "a caption that is much too long for the width of one picture on the sheet"))
    sheet = np.asarray(contact_sheet(pictures, columns=4))
    assert sheet.shape == (16 + 2 * (256 + 28 + 16), 16 + 4 * (256 + 16), 3)
    for index, colour in enumerate(colours):
        left, top = 16 + index % 4 * 272, 16 + index // 4 * 300
        assert tuple(sheet[top + 128, left + 128]) == colour
        caption = sheet[top + 258 : top + 282, left : left + 256]
        assert (caption.sum(-1) < 300).any(), "no caption"
        # Nothing runs into the margin on the right.
        assert (sheet[top + 258 : top + 282, left + 256 : left + 272] > 240).all()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (20, "20 seconds"), (89, "89 seconds"), (90, "2 minutes"), (300, "5 minutes")],
)
def test_durations_read_like_speech(seconds, text):
    assert duration(seconds) == text


def test_a_thumbnail_holds_every_picture():
    def encoded(grey):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (grey,) * 3).save(buffer, "PNG")
        return buffer.getvalue()

    assert tiled([encoded(9)]).size == (40, 30)
    sheet = tiled([encoded(grey) for grey in (10, 20, 30)])
    assert sheet.size == (80, 60)
    assert [sheet.getpixel(at)[0] for at in ((5, 5), (45, 5), (5, 35))] == [10, 20, 30]
