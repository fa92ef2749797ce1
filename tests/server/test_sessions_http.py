from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from semantic_parrot.core.wire import template


def call(id: str, output: str, *parts: str | tuple[str]) -> dict[str, Any]:
    message = {"role": "user", "content": template(*parts)}
    return {"id": id, "output": output, "request": {"model": "default", "temperature": 0, "messages": [message]}}


PLAIN = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def session(site):
    opened = site.http.post("/v1/sessions").json()["id"]
    yield f"/v1/sessions/{opened}"
    site.http.delete(f"/v1/sessions/{opened}")


def submit(site: Any, session: str, *calls: dict[str, Any], **inputs: str | None) -> dict[str, str]:
    response = site.http.post(f"{session}/calls", json={"calls": calls, "inputs": inputs})
    assert response.status_code == 200, response.text
    return dict(response.json()["variables"])


def get(site: Any, variable: str) -> httpx.Response:
    return site.http.get(f"/v1/variables/{quote(variable)}")


def test_submit_set_and_get_step_by_step(site, session):
    ids = submit(
        site, session, call("a", "first", "Say ", ("word",)), call("b", "second", "Go on: ", ("first",)), word=None
    )
    assert set(ids) == {"first", "second", "word"}
    assert site.engine.seen == []  # nothing is ready before the input is set
    assert site.http.put(f"/v1/variables/{ids['word']}", json={"value": "parrot"}).status_code == 200
    second = get(site, ids["second"]).json()
    first = get(site, ids["first"]).json()
    assert first["name"] == "first"
    assert [m.content for request in site.engine.seen for m in request.messages or ()] == [
        "Say parrot",
        f"Go on: {first['value']}",
    ]
    # A later submission reads what an earlier one made.
    later = submit(site, session, call("c", "third", "More: ", ("second",)))
    assert get(site, later["third"]).status_code == 200
    assert site.engine.seen[-1].messages[0].content == f"More: {second['value']}"


def test_a_program_may_join_a_session(site, session):
    ids = submit(site, session, call("a", "first", "Say it"))
    first = get(site, ids["first"]).json()["value"]
    program = {"calls": [call("b", "out", "Go on: ", ("first",))], "parrot": {"session": session.rpartition("/")[2]}}
    assert site.http.post("/v1/runs", json=program).json()["status"] == "finished"
    assert site.engine.seen[-1].messages[0].content == f"Go on: {first}"


@pytest.mark.parametrize("name", ["a/b", "ä ö", "x.y.z", "50%", "a?b#c"])
def test_any_name_can_be_got(site, session, name):
    ids = submit(site, session, call("a", name, "hello"))
    assert get(site, ids[name]).json()["name"] == name


def test_get_waits_for_the_value(gated):
    session = f"/v1/sessions/{gated.http.post('/v1/sessions').json()['id']}"
    ids = submit(gated, session, call("a", "x", "hello"))
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=gated.server.base, timeout=20) as other:
        waiting = threading.Thread(target=lambda: answers.append(other.get(f"/v1/variables/{ids['x']}")))
        waiting.start()
        assert gated.engine.came.acquire(timeout=10)
        assert not answers
        gated.open_gate()
        waiting.join(10)
    assert answers[0].json()["value"]


def test_closing_a_session_ends_its_calls_and_whoever_waits(gated):
    session = f"/v1/sessions/{gated.http.post('/v1/sessions').json()['id']}"
    ids = submit(gated, session, call("a", "x", "hello"), call("b", "y", ("x",)))
    assert gated.engine.came.acquire(timeout=10)
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=gated.server.base, timeout=20) as other:
        waiting = threading.Thread(target=lambda: answers.append(other.get(f"/v1/variables/{ids['y']}")))
        waiting.start()
        assert gated.http.delete(session).json()["closed"] is True
        waiting.join(10)
    assert gated.engine.left.acquire(timeout=10)
    # Cancelled, or told so if it asked after the session had gone.
    assert answers[0].status_code in (424, 499, 410)
    assert gated.http.delete(session).status_code == 410
    assert gated.http.post(f"{session}/calls", json={"calls": [call("c", "z", "x")]}).status_code == 410


def test_a_failed_call_is_the_error_of_its_variable(gated):
    gated.engine.fail(after=0)
    session = f"/v1/sessions/{gated.http.post('/v1/sessions').json()['id']}"
    ids = submit(gated, session, call("a", "x", "hello"), call("b", "y", ("x",)))
    failed = get(gated, ids["x"])
    assert failed.status_code == 503
    assert failed.json()["error"]["code"] == "engine_failed"
    downstream = get(gated, ids["y"])
    assert downstream.status_code == 424
    assert "'b'" in downstream.json()["error"]["message"]
    assert "'x'" in downstream.json()["error"]["message"]


def test_what_may_not_be_set_is_refused(site, session):
    ids = submit(site, session, call("a", "x", "hello ", ("name",)), name="Ann", later=None)
    refused = {
        ids["x"]: 400,  # a call produces it
        ids["name"]: 400,  # it has a value
        ids["x"].replace(".x", ".nobody"): 404,
        "ses_nobody.x": 404,
        "nonsense": 404,
    }
    for variable, status in refused.items():
        response = site.http.put(f"/v1/variables/{variable}", json={"value": "v"})
        assert response.status_code == status
        assert response.json()["error"]["message"]
    for body in ({}, {"value": None}, {"value": "v", "surprise": 1}):
        assert site.http.put(f"/v1/variables/{ids['later']}", json=body).status_code == 400
    assert site.http.put(f"/v1/variables/{ids['later']}", json={"value": ""}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"calls": []},
        {"calls": [call("a", "x", ("nobody",))]},
        {"calls": [call("a", "x", ("x",))]},
        {"calls": [call("a", "x", "hi"), call("b", "x", "hi")]},
        {"calls": [call("a", "x", "hi")], "outputs": ["x"]},
        {"calls": [call("a", "x", "hi")], "surprise": 1},
        {"calls": [{**call("a", "x", "hi"), "request": {"model": "gpt-9", "prompt": "x"}}]},
    ],
)
def test_a_bad_submission_runs_nothing(site, session, body):
    response = site.http.post(f"{session}/calls", json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"]
    assert site.engine.seen == []


@pytest.mark.parametrize(
    "query", ["stream=true", "criteria=fast", "criteria=deadline_ms%3D0", "criteria=latency&criteria=latency", "x=1"]
)
def test_a_query_that_nobody_obeys_is_refused_by_name(site, session, query):
    ids = submit(site, session, call("a", "x", "hello"))
    response = site.http.get(f"/v1/variables/{ids['x']}?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == query.partition("=")[0]


def test_a_session_that_was_closed_says_so_wherever_it_is_named(site):
    session = site.http.post("/v1/sessions").json()["id"]
    ids = submit(site, f"/v1/sessions/{session}", call("a", "x", "hello"))
    assert site.http.delete(f"/v1/sessions/{session}").status_code == 200
    program = {"calls": [call("b", "out", "Go on")], "parrot": {"session": session}}
    for response in (
        site.http.post(f"/v1/sessions/{session}/calls", json={"calls": [call("c", "y", "more")]}),
        site.http.post("/v1/runs", json=program),
        get(site, ids["x"]),
        site.http.put(f"/v1/variables/{ids['x']}", json={"value": "v"}),
        site.http.delete(f"/v1/sessions/{session}"),
        site.http.post("/v1/chat/completions", json={**PLAIN, "parrot": {"session": session}}),
    ):
        assert response.status_code == 410, response.text
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("session_closed", session)
        assert "was closed; open another one" in error["message"]
