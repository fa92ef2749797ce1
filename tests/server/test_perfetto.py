"""The trace of a run for Perfetto: what its slices say is what the report says, and no slice lies across another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import request

from semantic_parrot.server.explain.lanes import NOWHERE, lanes

FAN = {
    "calls": [
        *({"id": f"map{i}", "output": f"s{i}", "request": request(f"part {i}")} for i in range(3)),
        {"id": "reduce", "output": "r", "request": request("all: ", ("s0",), ("s1",), ("s2",))},
    ]
}


def test_slices_and_arrows_are_the_reports(site):
    run = site.http.post("/v1/runs", json=FAN).json()["id"]
    response = site.http.get(f"/v1/runs/{run}/trace")
    trace, report = response.json(), site.http.get(f"/v1/runs/{run}/report").json()
    assert f"{run}.json" in response.headers["content-disposition"]
    assert trace["otherData"]["id"] == run
    events = trace["traceEvents"]
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["scripted-0"]
    slices = {e["name"]: e for e in events if e.get("cat") == "call"}
    for call in report["calls"]:
        own = slices[call["id"]]
        assert own["ts"] == pytest.approx(call["times"]["ready"] * 1e6, abs=1)
        inside = [e for e in events if e.get("cat") == "phase" and e["tid"] == own["tid"] and own["ts"] <= e["ts"]]
        phases = [e for e in inside if e["ts"] + e["dur"] <= own["ts"] + own["dur"]]
        assert [e["name"] for e in phases] == ["queued", "prefill", "decode"]
    left = {e["id"]: e for e in events if e["ph"] == "s"}
    came = {e["id"]: e for e in events if e["ph"] == "f"}
    assert left.keys() == came.keys()
    assert len(left) == 3
    assert {e["ts"] for e in came.values()} == {slices["reduce"]["ts"]}
    assert {e["tid"] for e in left.values()} == {slices[f"map{i}"]["tid"] for i in range(3)}


def test_there_is_none_of_a_run_that_never_was(site):
    assert site.http.get("/v1/runs/run_0/trace").status_code == 404


def _call(ready, length, engine):
    times = {"ready": ready, "queued": length / 2, "prefill": 0.0, "decode": length / 2, "end": ready + length}
    return {"state": "finished", "engine": engine and {"name": engine}, "times": times}


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from(["a", "b", None])), max_size=40).map(
        lambda rows: [_call(*row) for row in rows]
    )
)
def test_lanes_are_as_few_as_calls_overlap_and_none_lies_on_another(calls):
    found = lanes({"calls": calls})
    assert sorted(stay.number for stays in found.values() for stay in stays) == list(range(len(calls)))
    assert list(found) == sorted(set(found) - {NOWHERE}) + [NOWHERE] * (NOWHERE in found)
    for stays in found.values():
        ends = {}
        for stay in stays:
            begun, ended = stay.spans[0][1], stay.spans[-1][2]
            assert ends.get(stay.lane, 0) <= begun
            ends[stay.lane] = ended
        times = [(s.spans[0][1], s.spans[-1][2]) for s in stays]
        most = max(sum(a <= at < b for a, b in times) for at, _ in times)
        assert len(ends) == most
