"""Chromium without a window, for commands and tests that need ComfyUI's graph editor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .messages import SetupProblem

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium, or Playwright's own.

    Raises:
        SetupProblem: Playwright is not installed, or there is no Chromium; the text says how to get it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SetupProblem("playwright is not installed in this environment, so nothing can drive a browser.") from None
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, _NAMES)), own if os.path.exists(own) else None)
        if program is None:
            raise SetupProblem(
                f"There is no Chromium ({', '.join(_NAMES)}); on Debian and Ubuntu: apt install chromium."
            )
        running = playwright.chromium.launch(executable_path=program, args=list(_QUIET))
        yield running
        running.close()
