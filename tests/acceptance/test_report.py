"""Reports of runs of the demo model, on two real engines: why, how long, and what was shared with whom."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from live import LiveServer

from semantic_parrot.core.wire import template

SYSTEM = "You are the clerk of the harbour. You write short plain entries and never invent a ship, a name or an hour.\n"
MAPS = [f"map{i}" for i in range(8)]


def chat(*parts: str | tuple[str], tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template(*parts)}]
    return {
        "model": "default", "temperature": 0, "max_tokens": tokens, "ignore_eos": True, "messages": messages
    }  # fmt: skip


def map_reduce() -> dict[str, Any]:
    calls = [
        {"id": f"map{i}", "output": f"s{i}", "request": chat("Summarise:\n", (f"d{i}",), tokens=8 + 2 * i)}
        for i in range(8)
    ]
    merge = [part for i in range(8) for part in ((f"s{i}",), "\n")]
    calls.append({"id": "reduce", "output": "report", "request": chat("Merge:\n", *merge, tokens=16)})
    calls.append({"id": "polish", "output": "polished", "request": chat("Upper-case:\n", ("report",), tokens=12)})
    calls.append({"id": "title", "output": "title", "request": chat("Give a title:\n", ("polished",), tokens=8)})
    inputs = {f"d{i}": f"At {7 + i}:00 the tug Alder left berth {i + 1} with coal." for i in range(8)}
    return {"calls": calls, "inputs": inputs, "outputs": ["title"], "parrot": {"objectives": {"title": "latency"}}}


ASK = {
    "calls": [
        {"id": "ask", "output": "a", "request": chat("Which ships are in port?", tokens=16)},
        {"id": "more", "output": "b", "request": chat("And then? ", ("a",), tokens=8)},
    ],
    "parrot": {"objectives": {"b": "throughput"}},
}


@pytest.fixture(scope="module")
def reports():
    """Of a map-reduce and a chain of two, which ran at the same time; and the seconds in which both did."""
    with LiveServer("--engines", "2") as server, httpx.Client(base_url=server.base, timeout=120) as http:
        with ThreadPoolExecutor() as pool:
            begun = time.monotonic()
            runs = [pool.submit(http.post, "/v1/runs", json=program) for program in (map_reduce(), ASK)]
            ids = [run.result().json()["id"] for run in runs]
            took = time.monotonic() - begun
        yield *(http.get(f"/v1/runs/{run}/report").json() for run in ids), took


def test_each_call_says_where_it_ran_and_why(reports):
    first, second, _ = reports
    for report in (first, second):
        assert report["status"] == "finished"
        for call in report["calls"]:
            engine = call["engine"]
            assert engine["name"] in ("native-0", "native-1")
            assert engine["why"] in ("task-group", "queued-sharers", "prefix-held", "least-impact")
            assert 1 <= engine["room"] <= engine["engines"] == 2
            assert f"{engine['room']} of 2 engines had room" in engine["explanation"]
    calls = {call["id"]: call for call in first["calls"]}
    assert all(calls[name]["task_group"]["calls"] == MAPS for name in MAPS)
    assert {call["because"] for call in calls.values()} == {
        "stated for 'title'", "stated for 'title', which needs this call"
    }  # fmt: skip
    assert [call["objective"] for call in second["calls"]] == ["throughput"] * 2


def test_times_add_up_and_stand_beside_the_predictions(reports):
    first, second, took = reports
    for report in (first, second):
        assert 0 < report["seconds"] <= took
        assert 0 <= report["idle_seconds"] < report["seconds"]
        for call in report["calls"]:
            times, predicted, real = call["times"], call["predicted"], call["real"]
            parts = times["queued"] + times["prefill"] + times["decode"]
            assert 0 < parts <= times["end"] - times["ready"] + 1e-6
            assert real["seconds"] == pytest.approx(times["prefill"] + times["decode"])
            assert predicted["seconds"] > 0
            assert predicted["output_tokens"] == real["output_tokens"]  # it was told how many
            assert 0 <= real["cached_tokens"] < real["prompt_tokens"]
            assert call["margin"] == pytest.approx(call["latest_start"] - times["ready"] - times["queued"])
            assert call["slack"] >= 0
    path = first["critical_path"]
    assert path["calls"][1:] == ["reduce", "polish", "title"]
    assert path["queued"] + path["prefill"] + path["decode"] <= path["seconds"] <= first["seconds"]


def test_what_was_reused_and_with_whom(reports):
    first, second, _ = reports
    usage = first["usage"]
    assert usage["prompt_tokens"] == sum(call["real"]["prompt_tokens"] for call in first["calls"])
    assert usage["cached_tokens"] == sum(call["real"]["cached_tokens"] for call in first["calls"]) > 0
    assert first["reused"] == pytest.approx(usage["cached_tokens"] / usage["prompt_tokens"])
    for mine, theirs in ((first, second), (second, first)):
        ids = [call["id"] for call in theirs["calls"]]
        for call in mine["calls"]:
            widest = call["prefixes"][-1]
            assert widest["count"] == 13
            assert widest["characters"] >= len(SYSTEM)
            assert widest["runs"][theirs["id"]]["count"] == len(ids)
            assert set(widest["runs"][theirs["id"]]["calls"]) <= set(ids)
            assert set(widest["calls"]) < {call["id"] for call in mine["calls"]}
