"""The report of a run over a real socket, from a scripted engine: what was planned, what happened, and why."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import pytest

from semantic_parrot.core.wire import template

SYSTEM = "You are the clerk of the harbour. You write short plain entries and never invent a ship.\n"


def chat(*parts: str | tuple[str], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template(*parts)}]
    return {"model": "default", "temperature": 0, "messages": messages, **fields}


MAPS = [f"map{i}" for i in range(8)]


def map_reduce(**more: Any) -> dict[str, Any]:
    """Eight summaries, their merge, and a chain of two."""
    calls = [{"id": f"map{i}", "output": f"s{i}", "request": chat(f"{i}: ", (f"d{i}",))} for i in range(8)]
    merge = [part for i in range(8) for part in ((f"s{i}",), "\n")]
    calls.append({"id": "reduce", "output": "report", "request": chat("Merge:\n", *merge)})
    calls.append({"id": "polish", "output": "polished", "request": chat("Polish:\n", ("report",))})
    calls.append({"id": "title", "output": "title", "request": chat("Give a title:\n", ("polished",))})
    return {"calls": calls, "inputs": {f"d{i}": f"entry {i}" for i in range(8)}, "outputs": ["title"], **more}


def report_of(http: Any, run: str) -> dict[str, Any]:
    response = http.get(f"/v1/runs/{run}/report")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def by_id(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {call["id"]: call for call in report["calls"]}


@contextmanager
def running(gated, program, decoding):
    """The id of a run that has come so far that `decoding` calls have said their first word."""
    with gated.http.stream("POST", "/v1/runs", json={**program, "stream": True, "deltas": "all"}) as response:
        told = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        run = next(told)["id"]
        heard = 0
        while heard < decoding:
            heard += next(told)["type"] == "variable.delta"
        yield run, told


def test_every_call_says_what_it_was_planned_to_be(site):
    parrot = {"objectives": {"title": "latency"}}
    run = site.http.post("/v1/runs", json=map_reduce(parrot=parrot)).json()
    report = report_of(site.http, run["id"])
    calls = by_id(report)
    assert (report["id"], report["status"]) == (run["id"], "finished")
    assert report["usage"] == run["usage"]
    assert [call["id"] for call in report["calls"]] == [*MAPS, "reduce", "polish", "title"]
    assert {call["state"] for call in calls.values()} == {"finished"}
    assert {call["objective"] for call in calls.values()} == {"latency"}
    assert calls["title"]["because"] == "stated for 'title'"
    assert calls["map3"]["because"] == "stated for 'title', which needs this call"
    for name in MAPS:
        assert calls[name]["task_group"]["calls"] == MAPS
        assert calls[name]["task_group"]["size"] == 8
        assert calls[name]["engine"]["why"] == "task-group"
        assert calls[name]["engine"]["together"] == 8
    assert calls["reduce"]["task_group"] is None
    for call in calls.values():
        assert call["engine"]["name"] == "scripted-0"
        assert "there is one engine" in call["engine"]["explanation"]
        (system,) = (shared for shared in call["prefixes"] if shared["own"] == 11)
        assert system["characters"] >= len(SYSTEM)
        assert len(system["calls"]) == 8
        assert call["id"] not in system["calls"]
        assert set(system["calls"]) <= set(calls)
        assert call["latest_start"] is not None
        assert call["margin"] == pytest.approx(call["latest_start"] - call["times"]["ready"] - call["times"]["queued"])


def test_predicted_and_real_stand_side_by_side(site):
    run = site.http.post("/v1/runs", json=map_reduce()).json()
    for call in report_of(site.http, run["id"])["calls"]:
        usage = run["calls"][call["id"]]["response"]["usage"]
        schedule, timings = run["calls"][call["id"]]["schedule"], run["calls"][call["id"]]["timings"]
        assert call["real"] == {
            "seconds": pytest.approx(timings["prefill"] + timings["decode"]),
            "prompt_tokens": usage["prompt_tokens"],
            "cached_tokens": 0,
            "output_tokens": usage["completion_tokens"],
        }
        assert call["predicted"]["seconds"] == pytest.approx(schedule["predicted"])
        assert call["predicted"]["prompt_tokens"] > 0
        assert call["predicted"]["output_tokens"] > 0
        assert round(call["predicted"]["cached_tokens"]) == schedule["prefix"]["tokens"]
        assert call["times"]["ready"] == pytest.approx(timings["ready"], abs=1e-6)
        assert call["times"]["end"] >= call["times"]["ready"] + call["times"]["queued"]


def test_the_run_as_a_whole(site):
    report = report_of(site.http, site.http.post("/v1/runs", json=map_reduce()).json()["id"])
    calls = by_id(report)
    path = report["critical_path"]["calls"]
    assert path[0] in MAPS
    assert path[1:] == ["reduce", "polish", "title"]
    assert calls["reduce"]["waited_for"] == path[0] == max(MAPS, key=lambda name: calls[name]["times"]["end"])
    assert calls["reduce"]["needs"] == MAPS
    assert calls["title"]["waited_for"] == "polish"
    assert [call["id"] for call in report["calls"] if call["critical"]] == path
    assert calls["map0"]["waited_for"] is None
    assert report["critical_path"]["seconds"] == calls["title"]["times"]["end"] <= report["seconds"]
    assert report["hops"] == {"calls": 11, "dependent": 3, "deepest": 3}
    assert 0 <= report["idle_seconds"] <= report["seconds"]
    assert report["planned_seconds"] > 0
    for name in MAPS:
        late = calls["reduce"]["times"]["ready"] - calls[name]["times"]["end"] + calls["reduce"]["slack"]
        assert calls[name]["slack"] == pytest.approx(late, abs=1e-6)


def test_two_runs_name_each_other(gated):
    other = {"calls": [{"id": "ask", "output": "a", "request": chat("Which ships are in port?")}]}
    with running(gated, map_reduce(), 8) as (first, told), running(gated, other, 1) as (second, also_told):
        for ended in (False, True):
            if ended:
                gated.open_gate()
                assert [data["type"] for data in told][-1] == "run.finished"
                assert [data["type"] for data in also_told][-1] == "run.finished"
            mine, theirs = by_id(report_of(gated.http, first)), by_id(report_of(gated.http, second))
            shared = mine["map5"]["prefixes"][-1]
            assert shared["runs"] == {second: {"count": 1, "calls": ["ask"]}}
            (shared,) = theirs["ask"]["prefixes"]
            assert (shared["own"], shared["calls"]) == (1, [])
            assert shared["runs"][first]["calls"] == MAPS
            assert shared["runs"][first]["count"] == (11 if ended else 8)


def test_a_run_in_progress_says_what_it_waits_for(gated):
    with running(gated, map_reduce(), 8) as (run, _):
        report = report_of(gated.http, run)
    calls = by_id(report)
    assert report["status"] == "running"
    assert {calls[name]["state"] for name in MAPS} == {"decoding"}
    assert calls["map0"]["times"]["end"] is None
    assert calls["map0"]["times"]["so_far"] > 0
    assert calls["map0"]["engine"] is None
    assert calls["map0"]["slack"] is None
    assert calls["reduce"]["state"] == "waiting"
    assert calls["reduce"]["waits_for"] == [f"s{i}" for i in range(8)]
    assert calls["polish"]["waits_for"] == ["report"]
    assert calls["title"]["predicted"]["idle_seconds"] > 0
    assert calls["title"]["latest_start"] > calls["polish"]["latest_start"] > calls["reduce"]["latest_start"]
    assert calls["title"]["prefixes"][-1]["count"] == 11
    assert report["critical_path"]["calls"] == []


def test_a_cancelled_run_says_what_never_ran(gated):
    with running(gated, map_reduce(), 8) as (run, _):
        gated.http.delete(f"/v1/runs/{run}")
        report = report_of(gated.http, run)
    calls = by_id(report)
    assert report["status"] == "cancelled"
    assert len(calls) == 11
    assert {call["state"] for call in calls.values()} == {"aborted"}
    assert {call["reason"] for call in calls.values()} == {"the run was cancelled"}
    assert calls["map0"]["times"]["ready"] is not None
    assert calls["reduce"]["times"]["ready"] is None
    assert {call["objective"] for call in calls.values()} == {"latency"}
    assert calls["map2"]["task_group"]["size"] == 8


def test_failed_and_aborted_calls_have_their_reasons(site):
    calls = [
        {"id": "bad", "output": "x", "request": {"model": "default", "prompt": template(("blank",))}},
        {"id": "after", "output": "y", "request": chat(("x",))},
        {"id": "fine", "output": "z", "request": chat("hi")},
    ]
    run = site.http.post("/v1/runs", json={"calls": calls, "inputs": {"blank": ""}}).json()
    found = by_id(report_of(site.http, run["id"]))
    assert found["bad"]["state"] == "failed"
    assert found["bad"]["reason"] == run["errors"]["x"]["message"]
    assert found["after"]["state"] == "aborted"
    assert found["after"]["reason"] == run["errors"]["y"]["message"]
    assert found["after"]["objective"] == "latency"
    assert found["fine"]["state"] == "finished"
    assert found["fine"]["reason"] is None


def test_a_map_over_an_answer_depends_on_that_answer(site):
    program = {
        "calls": [{"id": "list", "output": "text", "request": chat("Name three ships.")}],
        "transforms": [{"id": "cut", "op": "split", "of": "text", "output": "names"}],
        "maps": [
            {"id": "each", "over": "names", "item": "name", "bound": 9, "output": "entries", "result": "entry",
             "calls": [{"id": "say", "output": "entry", "request": chat("Describe ", ("name",))}]}
        ],
    }  # fmt: skip
    report = report_of(site.http, site.http.post("/v1/runs", json=program).json()["id"])
    calls = by_id(report)
    assert set(calls) == {"list", "each[0].say", "each[1].say", "each[2].say"}
    assert calls["each[1].say"]["needs"] == ["list"]
    assert calls["each[1].say"]["waited_for"] == "list"
    assert report["hops"] == {"calls": 4, "dependent": 3, "deepest": 1}


def test_the_latest_run_and_runs_that_were_never(site):
    run = site.http.post("/v1/runs", json=map_reduce()).json()["id"]
    assert report_of(site.http, "latest")["id"] == run
    missing = site.http.get("/v1/runs/run_0/report")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    for query, where in (("format=xml", "format"), ("color=red", "color")):
        refused = site.http.get(f"/v1/runs/{run}/report?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, where)


def test_before_the_first_run_there_is_no_latest(gated):
    missing = gated.http.get("/v1/runs/latest/report")
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "there was no run yet")


class Page(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(site):
    run = site.http.post("/v1/runs", json=map_reduce()).json()["id"]
    for response in (
        site.http.get(f"/v1/runs/{run}/report", headers={"Accept": "text/html,*/*"}),
        site.http.get(f"/v1/runs/{run}/report?format=html"),
    ):
        assert response.headers["content-type"].startswith("text/html")
        assert response.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
        page = Page(response.text)
        assert not {"script", "link", "img", "iframe"} & set(page.tags)
        assert page.tags["a"] == page.tags["section"] == 11
        assert page.tags["path"] == 2 * 10  # each of ten dependencies, from both its ends
        assert "http" not in response.text
        assert not re.search(r"url\(|@import", response.text)
        for words in (run, "map7", "task group", "critical path", "its task group was placed as one"):
            assert words in page.text
    assert site.http.get(f"/v1/runs/{run}/report?format=json", headers={"Accept": "text/html"}).json()["id"] == run


HOSTILE = [
    '"><script>alert(1)</script>',
    "</style><img src=x onerror=alert(1)>",
    "'\" onload=alert(1) x='",
    "{{ 7*7 }}",
    "&lt;b&gt;",
]


def test_markup_in_names_and_errors_stays_text(site):
    calls = [
        {"id": name, "output": f"{name}!", "request": chat("tell me of ", (HOSTILE[i - 1] + "!",) if i else "it")}
        for i, name in enumerate(HOSTILE)
    ]
    calls.append({"id": "<b>bad", "output": "<i>x", "request": {"model": "default", "prompt": template(("<u>blank",))}})
    program = {"calls": calls, "inputs": {"<u>blank": ""}, "parrot": {"objectives": {"&lt;b&gt;!": "throughput"}}}
    run = site.http.post("/v1/runs", json=program).json()["id"]
    plain = Page(site.http.get(f"/v1/runs/{run}/report?format=html").text)
    harmless = {"calls": [{"id": "a", "output": "b", "request": chat("hi")}]}
    other = site.http.post("/v1/runs", json=harmless).json()["id"]
    usual = Page(site.http.get(f"/v1/runs/{other}/report?format=html").text)
    assert set(plain.tags) <= {*usual.tags, "path", "tspan"}
    assert plain.names <= {*usual.names, "d"}
    for name in HOSTILE:
        assert name in plain.text
