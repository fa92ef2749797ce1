"""The report of a run that only the journal knows says what the server said, as far as the journal keeps it."""

from __future__ import annotations

import pytest
from scripted import ScriptedEngine

from semantic_parrot.core.errors import NotFound
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.report import report
from semantic_parrot.core.runtime import Runtime

from .test_durable import RICH, Paced, drawn, fail, started, told, until

#: Of a call: what the journal has not.
LOST = ("reads", "waits_for", "latest_start", "margin", "prefixes", "task_group", "slack", "predicted")


async def reports(body, url):
    """(the report of the server that ran it, that of the next one)."""
    runtime = await started(Journal(url))
    run, _ = await runtime.accept(parse_program(body), body, "ann")
    await told(run)
    await run.settle()
    first = report(await runtime.retell(run.id, "ann"))
    await runtime.close()
    runtime = await started(Journal(url))
    second = report(await runtime.retell(run.id, "ann"))
    assert report(await runtime.retell("latest", "ann")) == second
    for id, tenant in ((run.id, "bob"), ("run_x", "ann"), ("latest", "bob")):
        with pytest.raises(NotFound):
            await runtime.retell(id, tenant)
    await runtime.close()
    return first, second


async def test_it_says_what_the_server_said(tmp_path):
    first, second = await reports(RICH, f"sqlite:///{tmp_path / 'journal.db'}")
    assert (first.pop("retold"), second.pop("retold")) == (False, True)
    for field in ("id", "status", "created", "usage", "reused"):
        assert second[field] == first[field]
    assert second["seconds"] >= max(call["times"]["end"] or 0.0 for call in second["calls"])
    assert second["hops"]["calls"] <= first["hops"]["calls"]
    before = {call["id"]: call for call in first["calls"]}
    assert {call["id"] for call in second["calls"]} == set(before)
    for call in second["calls"]:
        known = before[call["id"]]
        for field in ("state", "reason", "real"):
            assert call[field] == known[field]
        own = not call["id"].startswith(("each", "way"))
        assert call["output"] == (known["output"] if own else call["id"])
        if call["state"] == "finished":
            assert (call["objective"], call["because"]) == (known["objective"], known["because"])
            times = call["times"]
            assert times["ready"] == known["times"]["ready"]
            assert times["end"] == pytest.approx(
                times["ready"] + sum(times[p] for p in ("queued", "prefill", "decode"))
            )
            assert {name: call["engine"][name] for name in ("name", "why", "single_flight")} == {
                name: known["engine"][name] for name in ("name", "why", "single_flight")
            }
            assert call["engine"]["engines"] is None
            assert "there is one engine" not in call["engine"]["explanation"]
            assert call["predicted"]["prompt_tokens"] is None
    needs = {call["id"]: call["needs"] for call in second["calls"]}
    assert needs["call_sampled"] == ["call_list"]
    assert {"call_sampled"} <= set(needs["call_end"])


async def test_a_body_that_is_not_understood_any_more_has_a_report(tmp_path):
    """Of an earlier version: then calls are known by their ids alone."""
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    runtime = Runtime([Paced(fail=fail, answers=drawn)], journal=Journal(url), grace=0.0)
    await runtime.start()
    run, _ = await runtime.accept(parse_program(RICH), {"of": "another version"})
    await told(run)
    await until(lambda: run.id not in runtime._runs)
    await runtime.close()
    runtime = await started(Journal(url), ScriptedEngine())
    found = report(await runtime.retell(run.id))
    assert {call["output"] for call in found["calls"]} == {call["id"] for call in found["calls"]}
    await runtime.close()
