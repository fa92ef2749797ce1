from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from semantic_parrot.core.wire import content_key, render, template


def chat(*parts: str | tuple[str], **fields: Any) -> dict[str, Any]:
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}], **fields}


PROGRAM: dict[str, Any] = {
    "calls": [
        {"id": "m0", "output": "s0", "request": chat("Summarise ", ("d0",))},
        {"id": "m1", "output": "s1", "request": chat("Summarise ", ("d1",))},
        {"id": "r", "output": "answer", "request": chat("Merge ", ("s0",), " and ", ("s1",))},
    ],
    "inputs": {"d0": "one", "d1": "two"},
    "outputs": ["answer"],
}


def events(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(id, event, data) of each SSE block; comments are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(": ")
            fields[key] = value
        elif "data" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def eager(http: httpx.Client, request: dict[str, Any], **values: str) -> str:
    response = http.post("/v1/chat/completions", json=render(request, values))
    return str(response.json()["choices"][0]["message"]["content"])


def test_a_program_gives_what_eager_calls_give(site):
    result = site.http.post("/v1/runs", json=PROGRAM).json()
    s0, s1 = (eager(site.http, PROGRAM["calls"][i]["request"], d0="one", d1="two") for i in (0, 1))
    assert result["outputs"] == {"answer": eager(site.http, PROGRAM["calls"][2]["request"], s0=s0, s1=s1)}
    assert result["status"] == "finished"
    assert result["errors"] == {}
    merged = render(PROGRAM["calls"][2]["request"], {"s0": s0, "s1": s1})
    assert result["calls"]["r"]["content_key"] == content_key(merged)
    assert result["calls"]["m0"]["response"]["choices"][0]["message"]["content"] == s0


def test_the_event_stream_tells_all_in_order(site):
    with site.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True, "deltas": ["r"]}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache"
        told = list(events(response.iter_lines()))
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    assert all(name == data["type"] for _, name, data in told)
    names = [(name, data["id"]) for _, name, data in told]
    assert names[0][0] == "run.started"
    assert names[-1] == ("run.finished", names[0][1])
    assert names.index(("call.ready", "r")) < max(names.index(("call.finished", m)) for m in ("m0", "m1"))
    text = "".join(data["text"] for _, name, data in told if name == "variable.delta")
    assert text == told[-1][2]["outputs"]["answer"]


def test_deltas_come_as_they_are_generated(gated):
    program = {"calls": [{"id": "a", "output": "x", "request": chat("hi")}], "stream": True, "deltas": "all"}
    with gated.http.stream("POST", "/v1/runs", json=program) as response:
        told = events(response.iter_lines())
        for _, name, _data in told:
            if name == "variable.delta":
                break
        gated.open_gate()  # the first delta was here before the rest could be
        assert [name for _, name, _ in told][-1] == "run.finished"


def test_reattach_gives_every_event_exactly_once(gated):
    with gated.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        told = events(response.iter_lines())
        first = [next(told) for _ in range(2)]
        run = first[0][2]["id"]
    gated.open_gate()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(first[-1][0])}
    with gated.http.stream("GET", f"/v1/runs/{run}", headers=headers) as response:
        rest = list(events(response.iter_lines()))
    assert [number for number, _, _ in first + rest] == list(range(1, len(first + rest) + 1))
    assert rest[-1][1] == "run.finished"
    assert rest[-1][2]["status"] == "finished"
    again = list(events(gated.http.get(f"/v1/runs/{run}", headers={"Accept": "text/event-stream"}).iter_lines()))
    assert again == first + rest
    assert gated.http.get(f"/v1/runs/{run}").json()["outputs"] == rest[-1][2]["outputs"]


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "²", "9" * 30, "1000"])
def test_a_bad_last_event_id_is_refused(gated, text):
    with gated.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        run = next(events(response.iter_lines()))[2]["id"]
        headers = {"Accept": "text/event-stream", "Last-Event-ID": text.encode()}
        refused = gated.http.get(f"/v1/runs/{run}", headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "Last-Event-ID"


def test_runs_are_listed_while_they_can_be_read(gated):
    with gated.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        run = next(events(response.iter_lines()))[2]["id"]
        listed = gated.http.get("/v1/runs").json()
        (row,) = listed["data"]
        assert (listed["object"], row["id"], row["status"], row["ended"]) == ("list", run, "running", None)
        gated.http.delete(f"/v1/runs/{run}")
        (row,) = gated.http.get("/v1/runs").json()["data"]
        assert (row["id"], row["status"]) == (run, "cancelled")


def test_delete_cancels(gated):
    with gated.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        told = events(response.iter_lines())
        run = next(told)[2]["id"]
        assert gated.http.delete(f"/v1/runs/{run}").json()["status"] == "cancelled"
        assert list(told)[-1][2]["status"] == "cancelled"
    assert gated.http.get(f"/v1/runs/{run}").json()["errors"]["s0"]["code"] == "cancelled"


def test_delete_counts_what_was_not_claimed(site):
    run = site.http.post("/v1/runs", json=PROGRAM).json()
    response = site.http.request("DELETE", f"/v1/runs/{run['id']}", json={"unclaimed": ["m0"]})
    assert response.json()["status"] == "finished"
    used = run["calls"]["m0"]["response"]["usage"]["completion_tokens"]
    assert site.counted("parrot_unclaimed_tokens_total") == used


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("lifetime", ["prefetch", "foreground"])
def test_a_client_that_hangs_up_ends_its_run(gated, stream, lifetime):
    program = {**PROGRAM, "stream": stream, "parrot": {"lifetime": lifetime}}
    request = gated.http.build_request("POST", "/v1/runs", json=program)
    with httpx.Client(base_url=gated.server.base) as leaver:
        if stream:
            response = leaver.send(request, stream=True)
            assert gated.engine.came.acquire(timeout=10)
            response.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaver.send(leaver.build_request("POST", "/v1/runs", json=program, timeout=0.3))
    assert gated.engine.left.acquire(timeout=10)
    assert gated.engine.left.acquire(timeout=10)
    assert gated.server.metrics()['parrot_runs_total{status="cancelled"}'] == 1


def test_a_failed_call_is_an_error_by_variable(gated):
    gated.open_gate()
    long = {"id": "bad", "output": "x", "request": chat(("blank",))}
    program = {"calls": [long, {"id": "ok", "output": "y", "request": chat("hi")}], "inputs": {"blank": ""}}
    response = gated.http.post("/v1/runs", json=program)
    assert response.status_code == 200
    result = response.json()
    assert result["status"] == "failed"
    assert result["errors"]["x"]["code"] == "empty_prompt"
    assert result["errors"]["x"]["call"] == "bad"
    assert list(result["outputs"]) == ["y"]


def test_only_accepted_posts_are_round_trips(site):
    site.http.post("/v1/runs", json=PROGRAM)
    site.http.post("/v1/runs", json={"calls": []})
    site.http.post("/v1/chat/completions", json=chat())
    site.http.post("/v1/chat/completions", json={**chat(), "messages": [{"role": "user", "content": "a"}]})
    site.http.post("/v1/completions", json={"model": "default", "prompt": "a"})
    site.http.get("/v1/models")
    assert site.counted("parrot_requests_total") == 3
    assert site.counted('parrot_requests_total{route="/v1/runs"}') == 1
    assert site.counted("parrot_calls_executed_total") == 5
    assert site.counted('parrot_runs_total{status="finished"}') == 1
