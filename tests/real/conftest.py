"""For tests that need what a machine may lack: `make test-real` installs it, and here its absence is a failure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

#: Milliseconds that what is expected may take to be there: a machine may be busy, and nothing is asserted of time.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a display. Its sandbox does not run as root in a container. Not of the session: as
    long as Playwright is there, an event loop runs in this thread, and no asynchronous test can."""
    path = shutil.which("chromium")
    assert path is not None, "there is no chromium here: run `make test-real`, which installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, in which anything on the console, any script error and any dialog fails the test."""
    said: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))

        def dialog(shown):
            said.append(f"dialog: {shown.message}")
            shown.dismiss()

        page.on("dialog", dialog)
        yield page
    assert said == []
