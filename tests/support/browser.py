"""A headless Chromium for tests, and what happened in its pages."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT = 20_000  # ms, for anything that a page is asked


def find_chromium():
    """Return the path that CHROMIUM names, or of a Chromium on PATH; skip where there is none."""
    given = os.environ.get("CHROMIUM")
    path = shutil.which(given) if given else next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        where = f"CHROMIUM={given} is no program" if given else f"none of {', '.join(NAMES)}"
        pytest.skip(f"no Chromium: {where}{'' if given else ' on PATH, and CHROMIUM is not set'}")
    return path


@contextmanager
def chromium():
    """Launch the browser, for as long as the body runs."""
    path = find_chromium()
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=60_000
        )
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that was opened from a file, with its errors and requests."""

    def __init__(self, browser, path: Path, **options):
        self.errors = []
        self.requests = []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.open(path)

    def open(self, path: Path):
        """Open another file in its place, and forget what happened so far."""
        self.errors.clear()
        self.requests.clear()
        self.url = path.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-at]")

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def text(self, selector):
        """Return what is to be read there."""
        return self.page.inner_text(selector)

    def at(self):
        """Return the moment that is shown."""
        return int(self.page.get_attribute("body", "data-at"))

    def wait_at(self, at):
        """Wait until a moment is shown."""
        self.page.wait_for_selector(f'body[data-at="{at}"]')

    def go(self, at):
        """Go to a moment, and wait until it is shown."""
        self.page.evaluate("at => pagewalk.goTo(at)", at)
        self.wait_at(at)

    def walk(self, address, *, task=None):
        """Type an address and have it walked; return the texts of the steps, and of the verdict."""
        if task is not None:
            self.page.select_option("#task", label=task)
        self.page.fill("#address", address)
        self.page.press("#address", "Enter")
        return self.page.locator("#steps .step").all_inner_texts(), self.text("#verdict")

    def close(self):
        self.context.close()
