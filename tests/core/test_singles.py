"""Calls that came alone: what is told of them when they have ended, and where their inputs came from."""

import asyncio

import pytest
from programs import program, request
from scripted import ScriptedEngine

from semantic_parrot.core.errors import EngineFailed, NotFound
from semantic_parrot.core.report import report
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.singles import Singles
from semantic_parrot.core.snapshot import snapshot
from semantic_parrot.core.usage import Price


@pytest.fixture
def engine():
    return ScriptedEngine()


@pytest.fixture
async def runtime(engine):
    found = Runtime([engine], prices={"default": Price(1e6, 1e6, 1e6)})
    await found.start()
    yield found
    await found.close()


async def ask(runtime, id, text="A", *, tenant="", sources=(), **more):
    body = {**request(text), "parrot": {"sources": list(sources)}, **more}
    body["messages"] = [{"role": "user", "content": text}]
    return [item async for item in runtime.generate(body, tenant, id)][-1]


def told(runtime, id, tenant=""):
    return report(runtime.snapshot(id, tenant))


async def test_it_is_reported_as_a_run_of_one_call(runtime):
    done = await ask(runtime, "chatcmpl-1")
    found = told(runtime, "chatcmpl-1")
    [call] = found["calls"]
    total = done.usage.prompt + done.usage.completion
    assert (found["id"], found["status"]) == (call["id"], call["state"]) == ("chatcmpl-1", "finished")
    assert (call["objective"], call["engine"]["name"], call["outside"]) == ("latency", "scripted-0", [])
    assert call["real"]["output_tokens"] == done.usage.completion
    assert (found["usage"]["total_tokens"], found["usage"]["cost"]) == (total, pytest.approx(total))
    assert found["critical_path"]["calls"] == ["chatcmpl-1"]
    assert call["times"]["end"] == found["seconds"] >= call["times"]["queued"] >= 0


async def test_it_names_the_calls_its_values_came_from(runtime):
    run = runtime.submit(program({"a": ("A ",)}))
    await run.wait()
    await ask(runtime, "chatcmpl-1")
    await ask(runtime, "chatcmpl-2", "B", sources=[{"call": "chatcmpl-1"}, {"run": run.id, "call": "call_a"}])
    here = {"run": "chatcmpl-1", "call": "chatcmpl-1"}
    assert told(runtime, "chatcmpl-2")["calls"][0]["outside"] == [here, {"run": run.id, "call": "call_a"}]
    later = runtime.submit(program({"a": ("C ",)}, parrot={"sources": {"call_a": [{"call": "chatcmpl-1"}]}}))
    await later.wait()
    assert report(snapshot(later))["calls"][0]["outside"] == [here]


async def test_calls_of_nobody_and_of_other_tenants_are_not_named_and_cost_nothing(runtime):
    await ask(runtime, "chatcmpl-1", tenant="ann")
    there = runtime.submit(program({"a": ("A ",)}), "ann")
    sources = [{"call": "chatcmpl-1"}, {"run": there.id, "call": "call_a"}, {"call": "no"}, {"run": "x", "call": "y"}]
    await ask(runtime, "chatcmpl-2", tenant="bob", sources=sources)
    assert told(runtime, "chatcmpl-2", "bob")["calls"][0]["outside"] == []
    assert told(runtime, "chatcmpl-1", "ann")["status"] == "finished"
    for tenant in ("bob", ""):
        with pytest.raises(NotFound):
            runtime.snapshot("chatcmpl-1", tenant)


async def test_a_source_changes_no_answer(runtime):
    await ask(runtime, "chatcmpl-1")
    plain, hinted = await ask(runtime, "chatcmpl-2"), await ask(runtime, "chatcmpl-3", sources=[{"call": "chatcmpl-1"}])
    assert (hinted.text, hinted.usage) == (plain.text, plain.usage)


async def test_one_that_failed_says_why():
    runtime = Runtime([ScriptedEngine(fail=lambda _: EngineFailed("scripted"))])
    await runtime.start()
    with pytest.raises(EngineFailed):
        await ask(runtime, "chatcmpl-1")
    found = told(runtime, "chatcmpl-1")
    assert (found["status"], found["calls"][0]["reason"]) == ("failed", EngineFailed.code)
    assert found["usage"]["total_tokens"] == 0
    await runtime.close()


async def test_one_whose_client_left_was_cancelled():
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = Runtime([engine])
    await runtime.start()
    items = runtime.generate({**request("A"), "messages": [{"role": "user", "content": "A"}]}, "", "chatcmpl-1")
    await anext(items)
    with pytest.raises(NotFound):
        runtime.snapshot("chatcmpl-1")  # not before its end
    await items.aclose()
    found = told(runtime, "chatcmpl-1")
    assert (found["status"], found["calls"][0]["state"]) == ("cancelled", "aborted")
    await engine.until(running=0)
    await runtime.close()


async def test_of_equal_calls_that_ran_once_one_pays():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = Runtime([engine])
    await runtime.start()
    asked = [asyncio.create_task(ask(runtime, id)) for id in ("chatcmpl-1", "chatcmpl-2")]
    await engine.until(running=1)
    gate.set()
    await asyncio.gather(*asked)
    usages = [told(runtime, id)["usage"] for id in ("chatcmpl-1", "chatcmpl-2")]
    assert len(engine.seen) == 1
    assert [(usage["calls"], usage["shared_calls"]) for usage in usages] == [(1, 0), (0, 1)]
    assert usages[0]["total_tokens"] == usages[1]["shared_tokens"] > 0
    await runtime.close()


async def test_the_last_ones_are_remembered_and_runs_are_not_forgotten_for_them(runtime):
    runtime.singles = Singles(2)
    run = runtime.submit(program({"a": ("A ",)}))
    await run.wait()
    for i in range(3):
        await ask(runtime, f"chatcmpl-{i}")
    with pytest.raises(NotFound):
        runtime.snapshot("chatcmpl-0")
    assert [told(runtime, f"chatcmpl-{i}")["status"] for i in (1, 2)] == ["finished"] * 2
    assert runtime.snapshot("latest").id == run.id
