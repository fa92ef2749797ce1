"""Durable runs as a client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from followed import followed
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.service import Settings

REQUEST = {
    "model": "default",
    "temperature": 0,
    "messages": [{"role": "user", "content": {"$t": ["Say ", {"var": "x"}]}}],
}
PROGRAM: dict[str, Any] = {
    "calls": [{"id": "a", "output": "y", "request": REQUEST}],
    "inputs": {"x": "something"},
    "parrot": {"lifetime": "background"},
    "deltas": "all",
}


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[httpx.Client, ScriptedEngine]]:
    """`grace` is none: what has ended is read from the journal."""
    engine = ScriptedEngine()
    runtime = Runtime([engine], grace=0.0, journal=Journal())
    with (
        LocalServer(runtime, Settings(max_body=1_000_000, heartbeat=0.05)) as server,
        httpx.Client(base_url=server.base, timeout=20) as http,
    ):
        yield http, engine


def test_a_background_run_answers_at_once_and_is_read_as_often_as_one_likes(site):
    http, _ = site
    accepted = http.post("/v1/runs", json=PROGRAM)
    assert accepted.status_code == 202
    run = accepted.json()["id"]
    assert accepted.headers["location"] == f"/v1/runs/{run}"
    events = followed(http, run)
    assert [event["type"] for _, event in events][-2:] == ["call.finished", "run.finished"]
    for after in (0, 1, 3, len(events)):
        assert followed(http, run, after) == events[after:]
    result = http.get(f"/v1/runs/{run}").json()
    assert result["status"] == "finished"
    assert result["outputs"] == events[-1][1]["outputs"]
    assert result["calls"]["a"]["response"] == events[-2][1]["response"]
    assert http.delete(f"/v1/runs/{run}").json() == result
    assert run in [row["id"] for row in http.get("/v1/runs").json()["data"]]
    beyond = http.get(f"/v1/runs/{run}", headers={"Accept": "text/event-stream", "Last-Event-ID": "99"})
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_a_background_run_may_be_streamed_from_the_first(site):
    http, _ = site
    with http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        run = response.headers["location"].rpartition("/")[2]
        lines = [line for line in response.iter_lines() if line.startswith("id: ")]
    assert [int(line[4:]) for line in lines] == [number for number, _ in followed(http, run)]


def test_a_key_is_one_run(site):
    http, engine = site
    engine.seen.clear()
    for lifetime in ("background", "foreground", "prefetch"):
        program, key = {**PROGRAM, "parrot": {"lifetime": lifetime}}, {"Idempotency-Key": f"key of {lifetime}"}
        answers = [http.post("/v1/runs", json=program, headers=key) for _ in range(3)]
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True, True]
        streamed = http.post("/v1/runs", json={**program, "stream": True}, headers=key)
        assert streamed.status_code == 422
        assert streamed.json()["error"]["code"] == "idempotency_key_reused"
    assert len(engine.seen) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tin it"])
def test_a_bad_key_is_refused(site, key):
    http, _ = site
    answer = http.post("/v1/runs", json=PROGRAM, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("limit", ["0", "x", "1001", "-1", ""])
def test_a_bad_limit_is_refused(site, limit):
    http, _ = site
    answer = http.get("/v1/runs", params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


def test_the_newest_runs_are_listed(site):
    http, _ = site
    runs = [http.post("/v1/runs", json=PROGRAM).json()["id"] for _ in range(3)]
    rows = http.get("/v1/runs", params={"limit": 2}).json()["data"]
    assert [row["id"] for row in rows] == runs[1:]
    assert all(row["created"] <= (row["ended"] or row["created"]) for row in rows)
