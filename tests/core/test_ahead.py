"""What the engine is told of prompts that wait: their beginnings, as they grow, and when they are over."""

import asyncio
import itertools

import pytest
from scripted import ScriptedEngine, answer, text_of

from semantic_parrot.core import ahead
from semantic_parrot.core.ahead import Ahead
from semantic_parrot.core.engines.protocol import Delta
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import UNKNOWN, parse_request
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import render, template

GO_ON = "Go on with the harbour master's report, given "


def request(*parts):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}]}


def program(calls, **inputs):
    listed = [{"id": name, "output": name, "request": request(*parts)} for name, parts in calls.items()]
    return parse_program({"calls": listed, "inputs": inputs})


CHAIN = {"a": ("Begin ", ("doc",)), "b": (GO_ON, ("doc",), ": ", ("a",), " (and ", ("c",), ")"), "c": ("C",)}


@pytest.fixture
async def engine():
    return ScriptedEngine(gate=asyncio.Event())


async def started(*engines, **options):
    runtime = Runtime(engines, **options)
    await runtime.start()
    return runtime


async def run(engine, **options):
    runtime = await started(engine, **options)
    run = runtime.submit(program(CHAIN, doc="x"))
    await engine.until(running=2)
    if not options:
        await engine.until_asked(1)
    engine._gate.set()
    await run.wait()
    await runtime.close()
    return run


def texts(engine, key):
    return [None if r is None else text_of(r) for k, r in engine.prefills if k[1] == key]


def first_word(prompt):
    return answer(parse_request(render(request(prompt), {}))).partition(" ")[0]


async def test_a_beginning_is_filled_at_once_and_taken_back_when_the_call_starts(engine):
    await run(engine)
    text, taken_back = texts(engine, "b")
    before, between, _ = text.split(UNKNOWN)
    assert before in (f"user: {GO_ON}x: ", f"user: {GO_ON}x: {first_word('Begin x')}")
    assert between in (" (and ", f" (and {first_word('C')}")
    assert taken_back is None
    assert texts(engine, "a") == texts(engine, "c") == []


class Patient(ScriptedEngine):
    """Says no further word of its first call before what it has said is to be filled ahead."""

    async def generate(self, request, directions):
        said = ""
        async for item in super().generate(request, directions):
            yield item
            if text_of(request) == "user: Begin x" and isinstance(item, Delta):
                said += item.text
                while not any(r is not None and said + UNKNOWN in text_of(r) for _, r in self.prefills):
                    await self._changed.wait()


async def test_it_grows_with_its_producers_text(monkeypatch):
    monkeypatch.setattr(ahead, "EVERY", 5)
    engine = Patient()
    runtime = await started(engine)
    await runtime.submit(program({k: CHAIN[k] for k in "ab"} | {"b": (GO_ON, ("a",), "!")}, doc="x")).wait()
    await runtime.close()
    whole = answer(parse_request(render(request("Begin x"), {})))
    words = whole.split(" ")
    nothing, *begun = [f"user: {GO_ON}{' '.join(words[:n])}{UNKNOWN}!" for n in range(4)]
    asked = texts(engine, "b")
    assert asked[asked[0] == nothing :] == [*begun, None]  # on a busy machine it is asked before the first word too


async def test_the_longer_a_text_is_the_more_it_grows_by_before_it_is_filled_on(engine, monkeypatch):
    runtime = await started(engine)
    run = runtime.submit(program({"a": ("Begin",), "b": (GO_ON, ("a",))}))
    await engine.until(running=1)
    looked, text = [], ""
    monkeypatch.setattr(Ahead, "_look", lambda *_: looked.append(len(text)))
    for _ in range(20_000):
        text += "a word "
        run.session.ahead.grew("a", "a word ")
    monkeypatch.undo()
    engine._gate.set()
    await run.wait()
    await runtime.close()
    assert looked[0] < ahead.EVERY + 10
    assert all(ahead.EVERY <= b - a <= max(ahead.EVERY, a // 3) + 10 for a, b in itertools.pairwise(looked))
    assert sum(looked) < 4 * len(text)


async def test_off_tells_nothing_and_changes_nothing(engine):
    on = await run(engine)
    other = ScriptedEngine(gate=asyncio.Event())
    off = await run(other, disable={"prefill-ahead"})
    assert other.prefills == []
    assert on.outputs() == off.outputs()


async def test_an_engine_that_cannot_is_not_asked(engine):
    engine.abilities = frozenset()
    await run(engine, session_idle=60)
    assert engine.prefills == []


async def test_a_cancelled_run_takes_back_what_it_asked_for(engine):
    runtime = await started(engine)
    run = runtime.submit(program(CHAIN, doc="x"))
    await engine.until_asked(1)
    run.cancel()
    assert texts(engine, "b")[-1] is None
    await runtime.close()


def deep(length, system="Call {} has a system prompt of its own, and it is long. "):
    return {
        f"v{i}": (system.format(i), *([(f"v{i - 1}",)] if i else []), " Go on.")  #
        for i in range(length)
    }


async def test_constants_of_later_calls_are_filled_nearest_first_and_within_bounds(engine, monkeypatch):
    monkeypatch.setattr(ahead, "WARM", 3)
    runtime = await started(engine)
    run = runtime.submit(program(deep(12)))
    await engine.until_asked(4)
    assert [key[1] for key, r in engine.prefills if r is not None] == ["v1", "v2", "v3", "v4"]
    engine._gate.set()
    await run.wait()
    filling, asked = set(), []
    for key, r in engine.prefills:
        filling = filling | {key} if r is not None else filling - {key}
        asked += [key] if r is not None else []
        assert len(filling) <= 4  # three, and the one whose producer runs
    assert not filling
    assert len(asked) == len(set(asked))
    await runtime.close()


async def test_nothing_is_filled_too_far_ahead(engine, monkeypatch):
    monkeypatch.setattr(ahead, "REACH", 2)
    runtime = await started(engine)
    run = runtime.submit(program(deep(6)))
    await engine.until_asked(2)
    other = runtime.submit(program({"a": ("Begin",), "b": (GO_ON, ("a",))}))
    await engine.until_asked(3)  # later than any third one of the first would have been
    assert [key[1] for key, r in engine.prefills if r is not None] == ["v1", "v2", "b"]
    engine._gate.set()
    await asyncio.gather(run.wait(), other.wait())
    await runtime.close()


async def test_what_begins_alike_is_filled_once(engine):
    runtime = await started(engine)
    calls = {"a": ("Begin",)}
    calls |= {f"b{i}": (GO_ON, ("a",), f" and end with {i}") for i in range(20)}
    calls |= {f"c{i}": (GO_ON, (f"b{i}",)) for i in range(20)}
    run = runtime.submit(program(calls))
    await engine.until_asked(1)
    engine._gate.set()
    await run.wait()
    (asked,) = [text_of(r) for _, r in engine.prefills if r is not None]
    known = asked.removeprefix(f"user: {GO_ON}")
    assert known != asked
    assert known.removeprefix(first_word("Begin")).startswith(UNKNOWN)  # on a busy machine nothing had been said yet
    await runtime.close()


async def test_a_program_that_waits_for_an_input_is_warmed_up_too(engine):
    runtime = await started(engine)
    session = runtime.sessions.open()
    body = {"calls": [{"id": "a", "output": "a", "request": request(GO_ON, ("later",))}], "inputs": {"later": None}}
    run = runtime.submit(parse_program({**body, "parrot": {"session": session.id}}))
    await engine.until_asked(1)
    assert texts(engine, "a") == [f"user: {GO_ON}{UNKNOWN}"]
    engine._gate.set()
    session.set("later", "now")
    await run.wait()
    assert texts(engine, "a")[-1] is None
    await runtime.close()
