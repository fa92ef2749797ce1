"""The report of a run in a browser: what a client has written into names stays text, and nothing else is loaded."""

from __future__ import annotations

import httpx
from live import LocalServer
from programs import request
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def test_hostile_names_are_text_and_the_page_works_by_keyboard(page):
    with LocalServer(Runtime([ScriptedEngine()])) as server:
        calls = [
            {"id": HOSTILE, "output": "a", "request": request("one")},
            {"id": "two", "output": "b", "request": request("two", ("a",))},
        ]
        run = httpx.post(f"{server.base}/v1/runs", json={"calls": calls}).json()
        page.goto(f"{server.base}/v1/runs/{run['id']}/report")
        assert page.title() == run["id"]
        assert page.locator("h3", has_text=HOSTILE).count() == 1
        assert page.locator("script").count() == page.locator("img").count() == 0
        page.keyboard.press("Tab")
        focused = page.locator("a.row:focus")
        assert focused.get_attribute("aria-label").startswith(HOSTILE)
        page.keyboard.press("Enter")
        assert page.url.endswith("#call-0")
