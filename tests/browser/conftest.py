"""A real browser, and real servers with the pinned and with the newest front end."""

import os
import shutil

import pytest
from stagecraft.commands.cache import cache_folder
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment
from stagecraft.commands.frontend import newest_frontend
from stagecraft.tests.browser.editor import HEIGHT, WIDTH, Editor

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def refuse(reason):
    """Skip, except where .ci/run says that a browser has to be there."""
    if os.environ.get("STAGECRAFT_NEEDS_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        refuse("playwright is not installed in this environment, so nothing can drive a browser")
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, NAMES)), own if os.path.exists(own) else None)
        if program is None:
            refuse(f"there is no Chromium ({', '.join(NAMES)}); on Debian and Ubuntu: apt install chromium")
        running = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield running
        running.close()


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
