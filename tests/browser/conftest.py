"""A real browser, and real servers with the pinned and with the newest front end."""

import os

import pytest
from stagecraft.commands.browser import chromium
from stagecraft.commands.cache import cache_folder
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment
from stagecraft.commands.frontend import newest_frontend
from stagecraft.commands.messages import SetupProblem
from stagecraft.tests.browser.editor import HEIGHT, WIDTH, Editor


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; without one the tests are skipped, but where .ci/run says that it has to be there."""
    try:
        with chromium() as running:
            yield running
    except SetupProblem as problem:
        (pytest.fail if os.environ.get("STAGECRAFT_NEEDS_BROWSER") else pytest.skip)(str(problem))


@pytest.fixture(scope="session")
def pinned(tmp_path_factory):
    """A server with the front end that its ComfyUI asks for."""
    with ComfyServer(current_environment(), CLONE, base=tmp_path_factory.mktemp("pinned")) as running:
        yield running


@pytest.fixture(scope="session")
def newest(tmp_path_factory):
    """A server with the newest front end."""
    environment = current_environment()
    root = newest_frontend(cache_folder(), environment.python)
    arguments = ["--front-end-root", str(root)]
    base = tmp_path_factory.mktemp("newest")
    with ComfyServer(environment, CLONE, arguments=arguments, base=base) as running:
        yield running


class Editors:
    """One page for each server and rendering, kept for all tests."""

    def __init__(self, browser):
        self.browser = browser
        self.open = {}

    def get(self, server, rendering):
        key = (server.url, rendering)
        if key not in self.open:
            context = self.browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            self.open[key] = Editor(context, server.url, rendering)
        return self.open[key]


@pytest.fixture(scope="session")
def editors(browser):
    """The pages that are open."""
    return Editors(browser)


@pytest.fixture
def editor(editors, pinned):
    """The graph editor of the pinned front end in its classical rendering."""
    return editors.get(pinned, "classic")


@pytest.fixture(scope="module")
def run(editors, pinned):
    """Runs statements in the page with one of the canvas' modules; they take (module, argument)."""
    page = editors.get(pinned, "classic").page

    def run(module, statements, argument=None):
        script = f"""async (argument) => {{
            const module = await import("/extensions/stagecraft/layout_canvas/{module}.js");
            {statements} }}"""
        return page.evaluate(script, argument)

    return run
