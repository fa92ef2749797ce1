"""Usage, quota and deadline of a run, as a client sees them."""

from __future__ import annotations

import pytest

from .test_runs_http import PROGRAM, chat, events


def call(name: str, *parts: str | tuple[str]) -> dict[str, object]:
    return {"id": name, "output": name, "request": chat(*parts)}


def test_a_run_says_what_it_took(site):
    result = site.http.post("/v1/runs", json=PROGRAM).json()
    responses = [c["response"]["usage"] for c in result["calls"].values()]
    usage = result["usage"]
    assert usage["total_tokens"] == sum(r["total_tokens"] for r in responses) > 0
    assert usage["completion_tokens"] == sum(r["completion_tokens"] for r in responses)
    assert (usage["calls"], usage["shared_calls"], usage["cost"]) == (3, 0, None)
    assert site.http.get(f"/v1/runs/{result['id']}").json()["usage"] == usage
    with site.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True}) as response:
        *_, (_, _, end) = events(response.iter_lines())
    assert end["usage"] == usage


def test_a_run_under_way_says_what_it_took_so_far(gated):
    program = {"calls": [call("a", "A")], "stream": True, "deltas": "all"}
    with gated.http.stream("POST", "/v1/runs", json=program) as response:
        told = events(response.iter_lines())
        _, _, started = next(told)
        assert "variable.delta" in (event for _, event, _ in told)  # as far as the first
        so_far = gated.http.get(f"/v1/runs/{started['id']}").json()
        gated.open_gate()
        *_, (_, _, end) = told
    assert (so_far["status"], so_far["usage"]["total_tokens"], so_far["usage"]["calls"]) == ("running", 3, 1)
    assert (end["status"], end["usage"]["total_tokens"]) == ("finished", 5)


def test_a_prompt_past_the_quota_is_an_error_on_its_variable(site):
    calls = [call("long", "word " * 40), call("after", ("long",)), call("short", "hi")]
    result = site.http.post("/v1/runs", json={"calls": calls, "parrot": {"quota": {"tokens": 30}}}).json()
    assert (result["status"], list(result["outputs"])) == ("failed", ["short"])
    error = result["errors"]["long"]
    assert (error["code"], error["type"], error["call"]) == ("quota_exceeded", "insufficient_quota", "long")
    assert "the prompt has 40 tokens" in error["message"]
    assert "quota of 30 tokens" in error["message"]
    assert result["errors"]["after"]["code"] == "dependency_failed"
    assert result["calls"]["long"]["status"] == 402
    assert site.counted("parrot_calls_executed_total") == 1


def test_a_run_that_passes_its_quota_ends(gated):
    gated.open_gate()
    calls = [call("a", "A"), call("b", "B ", ("a",)), call("c", "C ", ("b",))]
    program = {"calls": calls, "outputs": ["a", "c"], "parrot": {"quota": {"tokens": 11}}}
    result = gated.http.post("/v1/runs", json=program).json()
    assert (result["status"], list(result["outputs"])) == ("failed", ["a"])
    assert {name: error["code"] for name, error in result["errors"].items()} == {
        "b": "quota_exceeded", "c": "dependency_failed"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parrot", "place"),
    [
        ({"quota": {"tokens": 0}}, "parrot.quota.tokens"),
        ({"quota": {"cost": -0.5}}, "parrot.quota.cost"),
        ({"quota": {"cost": 1}}, "parrot.quota.cost"),  # nobody has set a price
        ({"quota": {}}, "parrot.quota"),
        ({"deadline_ms": 0}, "parrot.deadline_ms"),
        ({"deadline_ms": -5}, "parrot.deadline_ms"),
    ],
)
def test_a_limit_that_allows_nothing_is_refused_by_name(site, parrot, place):
    response = site.http.post("/v1/runs", json={**PROGRAM, "parrot": parrot})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == place
    assert place in response.json()["error"]["message"]
    assert site.engine.seen == []


def test_a_deadline_that_is_past_when_the_run_is_accepted_runs_nothing(site):
    result = site.http.post("/v1/runs", json={**PROGRAM, "parrot": {"deadline_ms": 1e-6}}).json()
    assert (result["status"], result["outputs"], site.engine.seen) == ("failed", {}, [])
    assert result["errors"]["s0"]["code"] == "deadline_exceeded"
    assert result["errors"]["answer"]["code"] == "dependency_failed"


def test_to_cancel_a_run_that_has_ended_says_how_it_ended(site):
    result = site.http.post("/v1/runs", json=PROGRAM).json()
    for _ in range(2):
        response = site.http.delete(f"/v1/runs/{result['id']}")
        assert (response.status_code, response.json()) == (200, result)
    assert result["status"] == "finished"


def test_errors_of_values_show_their_beginning_and_the_rest_completes(site):
    long = "no JSON, but a text of more than eighty characters, of which nobody wants to see more in any message"
    items = [f"member {i}" for i in range(30)]
    program = {
        "calls": [call("fine", ("text",))],
        "transforms": [
            {"id": "parse", "op": "json", "of": "text", "output": "parsed"},
            {"id": "find", "op": "regex", "pattern": "^[0-9]+$", "of": "text", "output": "number"},
            {"id": "dig", "op": "get", "path": ["missing"], "of": "object", "output": "deep"},
            {"id": "wrong", "op": "join", "sep": "", "of": "object", "output": "joined"},
        ],
        "maps": [{"id": "each", "over": "items", "item": "x", "bound": 2, "result": "x", "output": "all"}],
        "inputs": {"text": long, "object": {"key": long}, "items": items},
    }
    result = site.http.post("/v1/runs", json=program).json()
    assert (result["status"], list(result["outputs"])) == ("failed", ["fine"])
    for name, code, value in (
        ("parsed", "no_match", long),
        ("number", "no_match", long),
        ("deep", "no_match", str({"key": long})),
        ("joined", "wrong_type", str({"key": long})),
        ("all", "too_large", str(items)),
    ):
        error = result["errors"][name]
        assert (error["code"], error["param"]) == (code, name)
        assert repr(value[:80]) in error["message"]
        assert value[:85] not in error["message"]
