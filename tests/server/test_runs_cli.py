"""`parrot runs`, against a server on a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from live import LocalServer
from scripted import ScriptedEngine
from typer.testing import CliRunner

from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.cli import app

REQUEST = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": "Say"}]}
EMPTY = {"$t": [{"var": "e"}]}
PROGRAM = {
    "calls": [
        {"id": "good", "output": "x", "request": REQUEST},
        {
            "id": "bad",
            "output": "y",
            "request": {**REQUEST, "messages": [{"role": "user", "content": {"$t": [{"var": "e"}]}}]},
        },
    ],
    "inputs": {"e": ""},
    "parrot": {"lifetime": "background"},
}
ANSWER = "an \x1b[31manswer\x1b[0m"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    engine = ScriptedEngine(answers=lambda _: ANSWER)
    with LocalServer(Runtime([engine], grace=0.0, journal=Journal())) as server:
        yield server


@pytest.fixture(scope="module")
def run(server: LocalServer) -> str:
    """One that has ended."""
    run = httpx.post(f"{server.url}/runs", json=PROGRAM).json()["id"]
    httpx.get(f"{server.url}/runs/{run}", headers={"Accept": "text/event-stream"})
    return str(run)


def parrot(server, *args, code=0):
    done = CliRunner().invoke(app, ["runs", *args, "--url", server.base])
    assert done.exit_code == code, done.output
    return done


def test_runs_are_listed(server, run):
    said = parrot(server, "ls").stdout
    assert run in said
    assert "failed" in said
    rows = json.loads(parrot(server, "ls", "--json", "--limit", "1").stdout)
    assert [row["id"] for row in rows] == [run]


def test_a_run_is_shown_and_no_answer_moves_the_cursor(server, run):
    said = parrot(server, "show", run).stdout
    assert "good" in said
    assert "empty_prompt" in said
    assert "x = an \\x1b[31manswer" in said
    assert "\x1b[31m" not in said
    assert json.loads(parrot(server, "show", run, "--json").stdout)["outputs"] == {"x": ANSWER}


def test_a_run_is_exported(server, run, tmp_path):
    result = json.loads(parrot(server, "export", run).stdout)
    assert result == httpx.get(f"{server.url}/runs/{run}").json()
    events = [json.loads(line) for line in parrot(server, "export", run, "--format", "events").stdout.splitlines()]
    assert (events[0]["type"], events[-1]["type"]) == ("run.started", "run.finished")
    parrot(server, "export", run, "--format", "perfetto", "--out", str(tmp_path / "trace.json"))
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    done = parrot(server, "export", run, "--out", str(tmp_path / "no" / "such"), code=2)
    assert "No such file" in done.stderr


def test_a_run_is_cancelled(server, run):
    assert parrot(server, "cancel", run).stdout == f"{run} failed\n"  # it has ended: nothing changes


@pytest.mark.parametrize("command", ["show", "cancel", "export"])
def test_what_is_not_there_is_one_line(server, command):
    done = parrot(server, command, "run_x?y=1", code=2)
    assert done.stderr.startswith("parrot: ")
    assert "no run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_server_is_one_line():
    done = CliRunner().invoke(app, ["runs", "ls", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_key_is_sent(monkeypatch):
    sent = []
    monkeypatch.setattr(
        httpx, "request", lambda *args, headers, **_: (sent.append(headers), httpx.Response(200, json={"data": []}))[1]
    )
    done = CliRunner().invoke(app, ["runs", "ls"], env={"PARROT_API_KEY": "secret"})
    assert done.exit_code == 0
    assert sent[0]["Authorization"] == "Bearer secret"
