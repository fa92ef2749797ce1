"""Logs in JSON: each run and call has its line, and nothing that a client said is in any, unless that is asked for."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import httpx
import pytest
from live import LiveServer
from programs import request

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.wire import template
from semantic_parrot.server.telemetry import Telemetry
from semantic_parrot.server.telemetry.json_logs import JsonFormatter

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "support" / "scripted_serve.py"), "serve"]
SECRET = "correct horse battery staple"

PROGRAM = {
    "calls": [
        {"id": "one", "output": "a", "request": request(f"{SECRET}: ", ("doc",))},
        {"id": "two", "output": "b", "request": request("again ", ("a",))},
        {"id": "bad", "output": "c", "request": {"model": "default", "prompt": template(("blank",))}},
    ],
    # Its error quotes what it could not read.
    "transforms": [{"id": "cut", "op": "json", "of": "doc", "output": "d"}],
    "inputs": {"doc": f"{SECRET}!", "blank": ""},
}
SINGLE = {"model": "default", "messages": [{"role": "user", "content": SECRET}]}


def lines_of(*flags: str) -> tuple[list[dict], str, list[str]]:
    """(the lines, them as text, answers that the clients got) of a server that has run a program and a single call."""
    with LiveServer("--log-format", "json", *flags, command=COMMAND) as server:
        run = httpx.post(f"{server.url}/runs", json=PROGRAM).json()
        assert SECRET in json.dumps(run["errors"])
        answer = httpx.post(f"{server.url}/chat/completions", json=SINGLE).json()
        said = [run["calls"]["one"]["response"]["choices"][0]["message"]["content"]]
        said.append(answer["choices"][0]["message"]["content"])
        server.stop()
        text = server.log()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["own"] = run["id"] == line.get("run"), line.get("call") == answer["id"]
    return lines, text, said


def test_each_run_and_call_has_its_line_with_its_ids_and_no_prompt():
    lines, text, said = lines_of()
    assert SECRET not in text
    assert not any(answer in text for answer in said)
    assert [line["message"] for line in lines if line["own"][0]] == ["run began", *["call ended"] * 3, "run ended"]
    calls = {line["call"]: line for line in lines if line["message"] == "call ended"}
    assert (calls["one"]["status"], calls["one"]["engine"]) == ("finished", "scripted-0")
    assert calls["one"]["completion_tokens"] == 3
    assert (calls["bad"]["status"], calls["bad"]["error"]) == ("failed", "empty_prompt")
    (single,) = (line for line in lines if line["own"][1])
    assert (single["status"], single["completion_tokens"], single["tenant"]) == ("finished", 3, "")
    (end,) = (line for line in lines if line["message"] == "run ended")
    assert end["status"] == "failed"
    assert set(end["errors"]) == {"empty_prompt", "no_match"}
    assert end["usage"]["calls"] == 2
    assert all(line["time"].endswith("Z") and line["level"] for line in lines)


def test_prompts_and_answers_are_logged_when_that_is_asked_for():
    lines, text, said = lines_of("--log-prompts")
    assert all(answer in text for answer in said)
    calls = {line["call"]: line for line in lines if line["message"] == "call ended"}
    assert SECRET in calls["one"]["request"]["messages"][0]["content"]


@pytest.mark.parametrize("prompts", [False, True])
def test_an_exception_is_told_without_what_it_says(prompts):
    try:
        raise KeyError(SECRET)
    except KeyError:
        found = sys.exc_info()
    record = logging.LogRecord("here", logging.ERROR, __file__, 1, "call %r", ("one",), found)
    line = json.loads(JsonFormatter(prompts=prompts).format(record))
    assert (line["message"], line["exception"]) == ("call 'one'", "KeyError")
    assert "test_logs.py" in line["trace"]
    assert (SECRET in json.dumps(line)) is prompts


def test_prompts_need_the_format_that_has_lines_for_calls():
    with pytest.raises(ConfigError, match="log_format json"):
        Telemetry.set_up("text", {}, prompts=True)
