"""Transforms, maps and branches over a socket: one POST, JSON values on the way out, errors by variable."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from semantic_parrot.adapters.client import ParrotClient
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.wire import content_key, render

from .test_runs_http import chat, eager, events

PROGRAM: dict[str, Any] = {
    "calls": [
        {"id": "list", "output": "text", "request": chat("List the harbours")},
        {"id": "merge", "output": "report", "request": chat("Merge: ", ("joined",), " of ", ("names",))},
    ],
    "transforms": [
        {"id": "words", "op": "split", "of": "text", "output": "names"},
        {"id": "lines", "op": "join", "sep": "\n", "of": "entries", "output": "joined"},
    ],
    "maps": [
        {
            "id": "each", "over": "names", "item": "name", "bound": 5, "output": "entries", "result": "entry",
            "calls": [{"id": "say", "output": "entry", "request": chat("Describe ", ("name",), " ", ("tone",))}],
        }
    ],
    "branches": [
        {
            "id": "choose", "on": "wanted", "output": "chosen",
            "arms": [{"when": True, "result": "joined"}, {"when": False, "result": "names"}],
        }
    ],
    "inputs": {"tone": "kindly", "wanted": False},
    "outputs": ["report", "names", "entries", "chosen"],
}  # fmt: skip


def test_a_map_over_an_answer_in_one_round_trip(site):
    result = site.http.post("/v1/runs", json=PROGRAM).json()
    assert result["status"] == "finished"
    assert site.counted("parrot_requests_total") == 1
    names = eager(site.http, chat("List the harbours")).split()
    entries = [eager(site.http, chat(f"Describe {name} kindly")) for name in names]
    merge = chat("Merge: ", "\n".join(entries), f" of {names}")
    assert result["outputs"] == {
        "report": eager(site.http, merge), "names": names, "entries": entries, "chosen": names
    }  # fmt: skip
    assert result["calls"]["merge"]["content_key"] == content_key(render(merge, {}))
    assert set(result["calls"]) == {"list", "merge", *(f"each[{i}].say" for i in range(len(names)))}
    assert site.counted("parrot_calls_executed_total") == 2 * len(result["calls"])


def test_the_events_name_the_calls_of_a_map_before_their_producer_ends(site):
    with site.http.stream("POST", "/v1/runs", json={**PROGRAM, "stream": True, "deltas": ["each"]}) as response:
        told = list(events(response.iter_lines()))
    names = [(name, data["id"]) for _, name, data in told]
    for i in range(3):
        assert names.index(("call.ready", f"each[{i}].say")) < names.index(("call.finished", "list"))
    outputs = told[-1][2]["outputs"]
    for i, entry in enumerate(outputs["entries"]):
        deltas = [data["text"] for _, name, data in told if data.get("variable") == f"entries[{i}].entry"]
        assert "".join(deltas) == entry


def test_the_client_takes_and_gives_json_values(site):
    program = parse_program(json.loads(json.dumps(PROGRAM)))
    with ParrotClient(site.server.url) as client:
        result = client.run(program)
        streamed = list(client.stream(program))[-1]
    assert isinstance(result.outputs["names"], list)
    assert streamed.outputs == result.outputs


def test_what_fails_at_run_time_is_an_error_on_its_variable(site):
    program = {
        "calls": [
            {"id": "a", "output": "text", "request": chat("Say it")},
            {"id": "ok", "output": "fine", "request": chat("Read ", ("text",))},
            {"id": "lost", "output": "never", "request": chat("Read ", ("data",))},
        ],
        "transforms": [
            {"id": "parse", "op": "json", "of": "text", "output": "data"},
            {"id": "find", "op": "regex", "pattern": r"^\d+$", "of": "text", "output": "number"},
            {"id": "dig", "op": "get", "path": ["a", 3], "of": "doc", "output": "deep"},
            {"id": "type", "op": "strip", "of": "doc", "output": "stripped"},
        ],
        "maps": [{"id": "m", "over": "long", "item": "x", "bound": 2, "result": "x", "output": "all"}],
        "inputs": {"doc": {"a": [1]}, "long": [1, 2, 3]},
    }
    response = site.http.post("/v1/runs", json=program)
    assert response.status_code == 200
    result = response.json()
    assert result["status"] == "failed"
    assert list(result["outputs"]) == ["fine"]
    errors = {
        name: (error["code"], error.get("transform") or error.get("map") or error.get("call"))
        for name, error in result["errors"].items()
    }
    assert errors == {
        "data": ("no_match", "parse"),
        "number": ("no_match", "find"),
        "deep": ("no_match", "dig"),
        "stripped": ("wrong_type", "type"),
        "all": ("too_large", "m"),
        "never": ("dependency_failed", "lost"),
    }
    assert result["calls"]["a"]["response"]["choices"][0]["message"]["content"] in result["errors"]["data"]["message"]
    assert "[1, 2, 3]" in result["errors"]["all"]["message"]


def test_step_by_step(site):
    session = f"/v1/sessions/{site.http.post('/v1/sessions').json()['id']}"
    body = {"transforms": [{"id": "t", "op": "csv", "of": "text", "output": "items"}], "inputs": {"text": None}}
    ids = site.http.post(f"{session}/calls", json=body).json()["variables"]
    assert set(ids) == {"text", "items"}
    maps = [
        {
            "id": "m", "over": "items", "item": "i", "bound": 9, "output": "all", "result": "r",
            "calls": [{"id": "c", "output": "r", "request": chat("Say ", ("i",))}],
        }
    ]  # fmt: skip
    ids |= site.http.post(f"{session}/calls", json={"maps": maps}).json()["variables"]
    assert site.http.put(f"/v1/variables/{ids['text']}", json={"value": "a, b"}).status_code == 200
    get = lambda name: site.http.get(f"/v1/variables/{quote(name)}")  # noqa: E731
    assert get(ids["items"]).json()["value"] == ["a", "b"]
    said = [eager(site.http, chat(f"Say {item}")) for item in "ab"]
    assert get(ids["all"]).json()["value"] == said
    assert get(f"{ids['all']}[1].r").json()["value"] == said[1]
    refused = site.http.put(f"/v1/variables/{ids['items']}", json={"value": []})
    assert refused.status_code == 400
    ids |= site.http.post(f"{session}/calls", json={"inputs": {"doc": None}, "transforms": [
        {"id": "g", "op": "get", "path": ["b"], "of": "doc", "output": "field"}]}).json()["variables"]  # fmt: skip
    assert site.http.put(f"/v1/variables/{ids['doc']}", json={"value": {"a": 1}}).status_code == 200
    missing = get(ids["field"])
    assert missing.status_code == 422
    assert "{'a': 1}" in missing.json()["error"]["message"]
