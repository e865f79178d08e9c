"""Every workflow file that a user finds in the template browser runs as it is and saves a picture."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.environment import CLONE
from stagecraft.commands.workflow import to_api

FILES = sorted((CLONE / "workflows").glob("*.json"))
# A picture of one colour, or of the faint noise that a failed decoder leaves, has less contrast than this.
SMALLEST_DEVIATION = 10.0


def test_there_are_workflows():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_template_browser_has_a_picture_of_it(path):
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert min(picture.size) >= 128


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_and_saves_a_picture(server, object_info, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    prompt = to_api(workflow, object_info)
    result = server.run(prompt, workflow=workflow)
    saved = {node: pictures for node, pictures in result.images.items() if prompt[node]["class_type"] == "SaveImage"}
    assert saved
    for picture in (picture for pictures in saved.values() for picture in pictures):
        image = Image.open(io.BytesIO(picture))
        assert np.asarray(image.convert("RGB"), float).std() > SMALLEST_DEVIATION
        # Dropped into the editor, the picture opens the workflow that made it.
        assert json.loads(image.info["workflow"])["nodes"]
