"""What judges learn from: things that the world does not have, and things that are none."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stagecraft.commands.messages import SetupProblem
from stagecraft.evaluation.judging import calibration
from stagecraft.evaluation.judging.training import clip, segmenter, train
from stagecraft.evaluation.judging.training.distractors import CALIBRATION, FOLDER, TRAINING, distractor, distractors
from stagecraft.evaluation.judging.training.make_distractors import NAMES
from stagecraft.evaluation.judging.training.mixtures import MIXTURES, warped
from stagecraft.evaluation.judging.training.pictures import (
    CLASSES,
    CONCEPT,
    DISTRACTOR,
    MIXTURE,
    OTHER,
    SLIGHTLY,
    draw,
)
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.sticker_world.readers.clip import SHIPPED, TaughtCLIP, make_clip
from stagecraft.sticker_world.readers.segmenter import make_segmenter as shipped_segmenter
from stagecraft.sticker_world.training.loop import weights_folder
from stagecraft.sticker_world.world.concepts import CANVAS, CONCEPT_NAMES
from stagecraft.sticker_world.world.dataset import open_scenes
from stagecraft.sticker_world.world.scene import cut, cut_sprite

CLONE = Path(__file__).resolve().parents[2]


def test_distractors_are_many_and_of_two_parts():
    training, asked = set(distractors(TRAINING)), set(distractors(CALIBRATION))
    assert len(training) >= 150 and len(asked) >= 50 and not training & asked
    assert training | asked == set(NAMES) and not set(NAMES) & set(CONCEPT_NAMES)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.webp")) < 1_500_000


def test_no_distractor_is_a_sprite_of_the_world():
    def looks(pixels):
        return torch.from_numpy(pixels)[None].movedim(-1, 1)

    def small(pixels):
        return torch.nn.functional.interpolate(looks(pixels), (24, 24), mode="area").flatten()

    world = torch.stack([small(cut_sprite(name, 0.5, 0.0, False)) for name in CONCEPT_NAMES])
    for part in (TRAINING, CALIBRATION):
        for name in distractors(part):
            apart = (world - small(cut(distractor(part, name), 0.5, 0.0, False))).abs().mean(1)
            assert apart.min() > 0.03, f"{name} looks like {CONCEPT_NAMES[apart.argmin()]}"


@pytest.mark.parametrize("kind", [CONCEPT, DISTRACTOR, MIXTURE])
def test_a_drawn_picture_has_exact_labels(kind):
    for index in range(6):
        drawn = draw(np.random.default_rng([5, index]), [kind, kind])
        assert drawn.image.shape == (CANVAS, CANVAS, 3) and drawn.labels.shape == (CANVAS, CANVAS)
        expected = {CLASSES.index(name) for name in drawn.names} if kind == CONCEPT else {CLASSES.index(OTHER)}
        assert set(np.unique(drawn.labels)) - {0} == expected
    assert (draw(np.random.default_rng(7)).image == draw(np.random.default_rng(7)).image).all()


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: mixture.__name__)
def test_a_mixture_is_neither_thing(mixture):
    rng = np.random.default_rng(3)
    one, other = (cut_sprite(name, 0.4, 0.0, False) for name in ("dog", "bus"))
    found = mixture(one, other, rng)
    assert found.ndim == 3 and found.shape[-1] == 4 and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 + 1e-5
    assert (found[..., :3] <= found[..., 3:] + 1e-3).all(), "colours are premultiplied"
    if found.shape == one.shape:
        assert np.abs(found - one).mean() > 0.02
    assert found[..., 3].mean() > 0.1


def test_what_is_pulled_about_slightly_stays_near_itself():
    thing = cut_sprite("cat", 0.5, 0.0, False)
    found = warped(thing, SLIGHTLY, np.random.default_rng(1))
    assert abs(found.shape[0] - thing.shape[0]) < 20 and abs(found.shape[1] - thing.shape[1]) < 20
    assert not np.array_equal(found, thing)


def test_judges_are_of_another_kind_than_the_shipped_networks():
    judge, shipped = segmenter.make_segmenter(), shipped_segmenter()
    assert judge.config.model_type != shipped.config.model_type
    assert tuple(judge.config.id2label.values()) == CLASSES and CLASSES[-1] == OTHER
    small, large = (make_clip(shape).model.config.vision_config for shape in (SHIPPED, clip.SHAPE))
    assert (small.image_size, small.hidden_size) != (large.image_size, large.hidden_size)
    assert SHIPPED.seed != clip.SHAPE.seed and SHIPPED.series != clip.SHAPE.series


def test_two_steps_of_training_run_through(tmp_path):
    pictures = segmenter.open_pictures(tmp_path, 4)
    assert pictures.shape == (4, CANVAS, CANVAS, 4)
    scenes = open_scenes(tmp_path / "scenes", 4, 5, held_out=None)
    expected = segmenter.train_segmenter(pictures, scenes, tmp_path / "one", 2)
    assert set(expected) == set(segmenter.make_segmenter().state_dict())
    assert all(torch.isfinite(value).all() for value in expected.values())


def test_export_writes_judges_that_open(tmp_path, monkeypatch):
    folders = {"SEGMENTER_FOLDER": tmp_path / "segmenter", "CLIP_FOLDER": tmp_path / "clip"}
    for name, folder in folders.items():
        monkeypatch.setattr(train, name, folder)
    with pytest.raises(SetupProblem, match="judge_segmenter.safetensors. Train the part first"):
        train.main(["export", "--folder", str(tmp_path)])
    averages = {segmenter.NAME: segmenter.make_segmenter(), clip.NAME: TaughtCLIP(clip.SHAPE)}
    weights_folder(tmp_path).mkdir()
    for name, model in averages.items():
        save_file(model.state_dict(), weights_folder(tmp_path) / f"{name}.safetensors")
    assert train.main(["export", "--folder", str(tmp_path)]) == 0
    judges = Yardsticks.load(*folders.values())
    assert tuple(judges.segmenter.classes) == CLASSES
    picture = draw(np.random.default_rng(0)).image
    assert judges.image_features([picture]).norm().item() == pytest.approx(1, abs=1e-4)
    assert judges.labels(picture).shape == (CANVAS, CANVAS)


def test_drawn_pictures_are_drawn_again_for_other_stickers(tmp_path, monkeypatch):
    segmenter.open_pictures(tmp_path, 2)
    before = (tmp_path / f"{segmenter.NAME}.npy").stat().st_mtime_ns
    segmenter.open_pictures(tmp_path, 2)
    assert (tmp_path / f"{segmenter.NAME}.npy").stat().st_mtime_ns == before
    monkeypatch.setattr(segmenter, "FOLDER", FOLDER / TRAINING)
    segmenter.open_pictures(tmp_path, 2)
    assert (tmp_path / f"{segmenter.NAME}.npy").stat().st_mtime_ns != before


def test_nothing_but_the_evaluation_opens_a_judge():
    """Neither a node, a method, a workflow, a training nor a command: what judges took no part in what it judges."""
    for room in ("core", "nodes", "sticker_world", "commands", "workflows", "web"):
        for path in (CLONE / room).rglob("*"):
            text = path.read_text(encoding="utf-8") if path.suffix in (".py", ".json", ".js") else ""
            if path.suffix == ".py":
                imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.ImportFrom, ast.Import))]
                names = {f"{getattr(node, 'module', '')}.{each.name}" for node in imports for each in node.names}
                assert not any("judging" in name for name in names), path
            assert not re.search(r"judging\W{1,8}weights|JUDGES", text), path


def test_whatever_judges_are_asked_has_an_answer_or_none():
    judge = Yardsticks.load()
    rows = calibration.answers({"judge": judge, "again": judge, "shipped": Yardsticks.shipped()}, share=0.05)
    assert len({row["what"] for row in rows}) == len(rows) == 7 + len(MIXTURES)
    for row in rows:
        assert row["judge"] == row["again"] and row["better"] in ("up", "down") and row["pictures"] > 0
        assert all(row[name] is None or 0 <= row[name] <= 1 for name in ("judge", "shipped"))
    shipped, said = ({row["what"]: row[name] for row in rows} for name in ("shipped", "judge"))
    assert shipped["unknown stickers: something else"] is None, "the shipped segmenter has no such class"
    for answers in (shipped, said):
        assert answers["real scenes, mean IoU"] > 0.8 and answers["concepts, slightly pulled about: known"] > 0.8
        assert answers["prompt beats one with a thing exchanged"] > 0.9
    # What they are for: things that the world does not have, and mixtures, are no concepts.
    assert said["unknown stickers: taken for a concept"] < 0.1 < shipped["unknown stickers: taken for a concept"]
    mixed = [row["what"] for row in rows if row["what"].startswith("mixtures")]
    assert np.mean([said[name] for name in mixed]) < 0.5 * np.mean([shipped[name] for name in mixed])
