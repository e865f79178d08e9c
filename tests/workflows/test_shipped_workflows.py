"""Every workflow file that a user finds in the template browser runs as it is and saves a picture."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.environment import CLONE
from stagecraft.commands.workflow import to_api
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.sticker_world.shipped import SEGMENTER_FOLDER
from stagecraft.sticker_world.world.concepts import CONCEPT_NAMES
from stagecraft.tests.things import found_in, opened

FILES = sorted((CLONE / "workflows").glob("*.json"))
# A picture of one colour, or of the faint noise that a failed decoder leaves, has less contrast than this.
SMALLEST_DEVIATION = 10.0


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(SEGMENTER_FOLDER)


def named_in(workflow):
    """The things that a workflow's prompts and layouts speak of; its notes do not count."""
    nodes = (node for node in workflow["nodes"] if node["type"] != "MarkdownNote")
    words = " ".join(str(value) for node in nodes for value in node.get("widgets_values") or ())
    return {name for name in CONCEPT_NAMES if re.search(rf"\b{name}\b", words)}


def test_there_are_workflows():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_template_browser_has_a_picture_of_it(path):
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert min(picture.size) >= 128


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_and_saves_pictures_with_all_that_it_speaks_of(server, object_info, segmenter, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    prompt = to_api(workflow, object_info)
    result = server.run(prompt, workflow=workflow)
    saved = {node: pictures for node, pictures in result.images.items() if prompt[node]["class_type"] == "SaveImage"}
    assert saved
    for picture in (picture for pictures in saved.values() for picture in pictures):
        image = opened(picture)
        assert np.asarray(image.convert("RGB"), float).std() > SMALLEST_DEVIATION
        # Dropped into the editor, the picture opens the workflow that made it.
        assert json.loads(image.info["workflow"])["nodes"]
    shown = [opened(picture) for all_of in result.images.values() for picture in all_of]
    named = named_in(workflow)
    assert named or path.stem == "recompose"  # which loads its layers
    assert named <= found_in(segmenter, (picture for picture in shown if picture.width == picture.height))
