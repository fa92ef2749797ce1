"""What the engine is told of prompts that wait: their beginnings, as they grow, and when they are over."""

import asyncio

import pytest
from scripted import ScriptedEngine, answer, text_of

from semantic_parrot.core import ahead
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import UNKNOWN, parse_request
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import render, template


def request(*parts):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}]}


def program(calls, **inputs):
    listed = [{"id": name, "output": name, "request": request(*parts)} for name, parts in calls.items()]
    return parse_program({"calls": listed, "inputs": inputs})


CHAIN = {"a": ("Begin ", ("doc",)), "b": ("Go on, given ", ("doc",), ": ", ("a",), " (and ", ("c",), ")"), "c": ("C",)}


@pytest.fixture
async def engine():
    return ScriptedEngine(gate=asyncio.Event())


async def run(engine, **options):
    runtime = Runtime([engine], **options)
    await runtime.start()
    started = runtime.submit(program(CHAIN, doc="x"))
    await engine.until(running=2)
    engine._gate.set()
    await started.wait()
    await runtime.close()
    return started


def texts(engine, key):
    return [None if r is None else text_of(r) for k, r in engine.prefills if k[1] == key]


async def test_a_beginning_is_filled_at_once_and_taken_back_when_the_call_starts(engine):
    await run(engine)
    assert texts(engine, "b") == [f"user: Go on, given x: {UNKNOWN} (and {UNKNOWN})", None]
    assert texts(engine, "a") == texts(engine, "c") == []


async def test_it_grows_with_its_producers_text(engine, monkeypatch):
    monkeypatch.setattr(ahead, "EVERY", 5)
    await run(engine)
    first, other = (answer(parse_request(render(request(prompt), {}))) for prompt in ("Begin x", "C"))
    whole = f"{first} (and {other})"
    seen = texts(engine, "b")
    assert seen[-1] is None
    known = [text.removeprefix("user: Go on, given x: ").partition(UNKNOWN)[0] for text in seen[:-1]]
    assert known[0] == ""
    assert len(known) > 1
    assert all(whole.startswith(text) for text in known)
    assert sorted(known, key=len) == known
    assert len(known[-1]) >= 5


async def test_off_tells_nothing_and_changes_nothing(engine):
    on = await run(engine)
    other = ScriptedEngine(gate=asyncio.Event())
    off = await run(other, disable={"prefill-ahead"})
    assert other.prefills == []
    assert on.outputs() == off.outputs()


async def test_a_cancelled_run_takes_back_what_it_asked_for(engine):
    runtime = Runtime([engine])
    await runtime.start()
    started = runtime.submit(program(CHAIN, doc="x"))
    started.cancel()
    assert texts(engine, "b")[-1] is None
    await runtime.close()
