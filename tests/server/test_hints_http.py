"""Hints outside programs, over HTTP: the field `parrot` of OpenAI bodies, `criteria` of a variable that is read."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest


def body(text: str, parrot: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": text}], "parrot": parrot, **fields}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("parrot", "rank"),
    [({"objective": "throughput"}, 2), ({"deadline_ms": 60_000}, 1), ({"priority": 3}, 0), (None, 0)],
)
def test_hints_of_a_body_reach_the_engine(site, parrot, rank, stream):
    site.engine.directed.clear()
    response = site.http.post("/v1/chat/completions", json=body("hi", parrot, stream=stream))
    assert response.status_code == 200
    assert [directions.rank for directions in site.engine.directed] == [rank]


def test_hints_of_a_completion(site):
    site.engine.directed.clear()
    asked = {"model": "default", "prompt": "hi", "parrot": {"objective": "throughput"}}
    assert site.http.post("/v1/completions", json=asked).status_code == 200
    assert [directions.rank for directions in site.engine.directed] == [2]


def test_a_call_past_its_deadline_is_an_error_that_no_client_repeats(gated):
    response = gated.http.post("/v1/chat/completions", json=body("hi", {"deadline_ms": 50}))
    # Its first word has come by then, if the machine is not busy: the answer has not.
    assert (response.status_code, response.headers["x-should-retry"]) == (504, "false")
    assert response.json()["error"]["code"] == "deadline_exceeded"
    gated.open_gate()
    assert gated.http.post("/v1/chat/completions", json=body("hi", None)).status_code == 200


@pytest.mark.parametrize(
    ("parrot", "status", "place"),
    [
        ({"sources": [{"call": 7}]}, 400, "parrot.sources[0].call"),
        ({"deadline_ms": 0}, 400, "parrot.deadline_ms"),
        ({"objectives": {"a": "latency"}}, 400, "parrot.objectives"),
        ({"session": "ses_nobody"}, 404, "ses_nobody"),
        ("latency", 400, "parrot"),
    ],
)
def test_hints_that_mean_nothing_are_refused(site, parrot, status, place):
    response = site.http.post("/v1/chat/completions", json=body("hi", parrot))
    assert response.status_code == status
    assert response.json()["error"]["param"] == place
    assert site.engine.seen == []


def test_a_call_ends_with_its_session(gated):
    session = gated.http.post("/v1/sessions").json()["id"]
    answers: list[httpx.Response] = []
    asked = body("hi", {"session": session})
    ask = threading.Thread(target=lambda: answers.append(gated.http.post("/v1/chat/completions", json=asked)))
    ask.start()
    assert gated.engine.came.acquire(timeout=10)
    assert gated.http.delete(f"/v1/sessions/{session}").status_code == 200
    ask.join(10)
    assert answers[0].status_code == 499
    assert answers[0].json()["error"]["code"] == "cancelled"
    assert gated.engine.left.acquire(timeout=10)


@pytest.mark.parametrize(
    ("criteria", "objective"),
    [("latency", "latency"), ("throughput", "throughput"), ("deadline_ms=60000", "deadline")],
)
def test_how_a_variable_is_read_reaches_its_producers(gated, criteria, objective):
    gated.open_gate()
    session = gated.http.post("/v1/sessions").json()["id"]
    calls = [
        {"id": "a", "output": "x", "request": {"model": "default", "prompt": {"$t": ["A ", {"var": "in"}]}}},
        {"id": "b", "output": "y", "request": {"model": "default", "prompt": {"$t": ["B ", {"var": "x"}]}}},
    ]
    sent = gated.http.post(f"/v1/sessions/{session}/calls", json={"calls": calls, "inputs": {"in": None}})
    ids = sent.json()["variables"]
    (run,) = gated.http.get("/v1/runs").json()["data"]
    answers: list[httpx.Response] = []
    read = threading.Thread(
        target=lambda: answers.append(gated.http.get(f"/v1/variables/{ids['y']}?criteria={criteria}"))
    )
    read.start()
    waiting: list[int] = [0]
    runtime = gated.server.runtime
    while not waiting[-1]:
        gated.server.call(lambda: waiting.append(len(runtime.sessions.get(session)._waiters)))
    gated.http.put(f"/v1/variables/{ids['in']}", json={"value": "go"})
    read.join(10)
    assert answers[0].status_code == 200
    schedules = [c["schedule"] for c in gated.http.get(f"/v1/runs/{run['id']}").json()["calls"].values()]
    assert [schedule["objective"] for schedule in schedules] == [objective, objective]
