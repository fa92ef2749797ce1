"""An empty answer in a prompt: what is shared with others ends twice at the same place."""

from __future__ import annotations

import httpx
from live import LocalServer
from scripted import ScriptedEngine, text_of

from semantic_parrot.core.runtime import Runtime

LONG = "The tug left at six, and by noon the fog was gone. "


def call(name, *parts):
    return {
        "id": name,
        "output": name,
        "request": {"model": "default", "messages": [{"role": "user", "content": {"$t": list(parts)}}]},
    }


def test_a_prompt_that_an_empty_answer_ends_is_answered():
    engine = ScriptedEngine(answers=lambda request: "" if text_of(request).startswith("user: first") else "words")
    calls = [
        call("a", "first"),
        call("b", LONG, {"var": "a"}),
        call("c", LONG, {"var": "a"}, {"var": "b"}, {"var": "a"}),
    ]
    with LocalServer(Runtime([engine])) as server:
        body = {"calls": calls, "outputs": ["b", "c"], "stream": False}
        run = httpx.post(f"{server.url}/runs", json=body, timeout=20).json()
    assert run["outputs"] == {"b": "words", "c": "words"}
