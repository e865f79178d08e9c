"""The pack in a folder whose name is no plain word: its canvas, its help pages and its templates are there."""

import json
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment
from stagecraft.tests.browser.editor import HEIGHT, WIDTH, Editor
from stagecraft.tests.browser.test_editing import TWO
from stagecraft.tests.browser.test_odd_values import drawn

NAMES = ("my stage", "Bühne 舞台", "a%20b {c} + 50% (2)")


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_the_page_asks_for_is_there(browser, name):
    with ComfyServer(current_environment(), CLONE, name=name) as server:
        for path in ("docs/StageLayoutCanvas.md", "layout_canvas/widget.js"):
            with urlopen(f"{server.url}/extensions/{quote(name)}/{path}") as answer:
                assert answer.read() == (CLONE / "web" / path).read_bytes()
        for path in ("tcig.json", "tcig.jpg"):
            with urlopen(f"{server.url}/api/workflow_templates/{quote(name)}/{path}") as answer:
                assert answer.read() == (CLONE / "workflows" / path).read_bytes()
        for path in ("../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "docs", "nothing.js"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"{server.url}/extensions/{quote(name)}/{path}")
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        editor = Editor(context, server.url, "classic")
        editor.add_canvas(json.dumps(TWO))
        assert editor.phrases == ["a cat", "a dog"]
        assert drawn(editor) > 0.1
        assert not editor.problems
        context.close()
