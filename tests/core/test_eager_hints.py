"""Hints outside programs: in OpenAI bodies, and in how a variable is waited for."""

import asyncio

import pytest
from scripted import ScriptedEngine, text_of

from semantic_parrot.core.eager import Criteria, parse_criteria
from semantic_parrot.core.errors import Cancelled, DeadlineExceeded, InvalidRequest, NotFound
from semantic_parrot.core.program import Body, Call, parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import content_key, template


def request(*parts, **more):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}], **more}


def plain(text, **more):
    return {**request(), "messages": [{"role": "user", "content": text}], **more}


async def started(engine, **options):
    runtime = Runtime([engine], grace=0.05, **options)
    await runtime.start()
    return runtime


async def last(items):
    return [item async for item in items][-1]


def said(engine):
    return [text_of(r).removeprefix("user: ") for r in engine.seen]


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("single_flight", [True, False])
async def test_objective_deadline_and_priority_of_a_body_are_obeyed(single_flight):
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = await started(engine, disable=() if single_flight else {"single-flight"})
    hints = {
        "first": None,
        "batch": {"objective": "throughput"},
        "dated": {"deadline_ms": 60_000},
        "plain": {},
        "urgent": {"priority": 1, "objective": "throughput"},
        "chat": {"objective": "latency", "deadline_ms": 60_000},
    }
    waiting = []
    for text, stated in hints.items():
        body = plain(text, parrot=stated)
        assert content_key(body) == content_key(plain(text))
        waiting.append(asyncio.create_task(last(runtime.generate(body))))
        await turns()
    gate.set()
    await asyncio.gather(*waiting)
    assert said(engine) == ["first", "urgent", "plain", "chat", "batch", "dated"]
    assert dict(zip(said(engine), (d.rank for d in engine.directed), strict=True)) == {
        "first": 0, "urgent": 2, "chat": 0, "plain": 0, "dated": 1, "batch": 2
    }  # fmt: skip
    await runtime.close()


@pytest.mark.parametrize(
    ("stated", "error", "place"),
    [
        ({"sources": ["v"]}, InvalidRequest, "parrot.sources[0]"),
        ({"sources": {"call": "chatcmpl-1"}}, InvalidRequest, "parrot.sources"),
        ({"sources": [{"run": "run_1"}]}, InvalidRequest, "parrot.sources[0].call"),
        ({"sources": [{"call": ""}]}, InvalidRequest, "parrot.sources[0].call"),
        ({"sources": [{"call": "x", "text": "y"}]}, InvalidRequest, "parrot.sources[0].text"),
        ({"sources": [{"call": "x" * 4097}]}, InvalidRequest, "parrot.sources[0].call"),
        ({"sources": [{"call": f"x{i}"} for i in range(17)]}, InvalidRequest, "parrot.sources"),
        ({"deadline_ms": 0}, InvalidRequest, "parrot.deadline_ms"),
        ({"deadline_ms": -1}, InvalidRequest, "parrot.deadline_ms"),
        ({"objective": "fast"}, InvalidRequest, "parrot.objective"),
        ({"priority": 101}, InvalidRequest, "parrot.priority"),
        ({"quota": {"tokens": 5}}, InvalidRequest, "parrot.quota"),
        ({"session": "ses_none"}, NotFound, "ses_none"),
        ([], InvalidRequest, "parrot"),
    ],
)
async def test_hints_that_mean_nothing_are_refused(stated, error, place):
    engine = ScriptedEngine()
    runtime = await started(engine)
    with pytest.raises(error) as caught:
        runtime.generate(plain("A", parrot=stated))
    assert caught.value.where == place
    await turns()
    assert engine.seen == []
    await runtime.close()


@pytest.mark.parametrize("disable", [(), {"single-flight"}])
async def test_a_call_ends_at_its_deadline(disable):
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = await started(engine, disable=disable)
    with pytest.raises(DeadlineExceeded, match="20"):
        await last(runtime.generate(plain("A", parrot={"deadline_ms": 20})))
    await engine.until(running=0)
    assert engine.cancelled == len(engine.seen)  # on a busy machine the deadline may come before its turn
    await runtime.close()


async def test_a_deadline_that_is_kept_changes_nothing():
    engine = ScriptedEngine()
    runtime = await started(engine)
    hinted = await last(runtime.generate(plain("A", parrot={"deadline_ms": 60_000})))
    assert hinted.text == (await last(runtime.generate(plain("A")))).text
    await runtime.close()


@pytest.mark.parametrize("disable", [(), {"single-flight"}])
async def test_a_call_ends_with_its_session(disable):
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = await started(engine, disable=disable)
    session = runtime.sessions.open()
    waiting = asyncio.create_task(last(runtime.generate(plain("A", parrot={"session": session.id}))))
    await engine.until(running=1)
    await turns()
    assert session.busy
    runtime.sessions.close(session.id)
    with pytest.raises(Cancelled, match="the session was closed"):
        await waiting
    await engine.until(running=0)
    assert not session.busy
    await runtime.close()


async def test_in_a_session_a_call_is_answered_as_outside():
    runtime = await started(ScriptedEngine())
    session = runtime.sessions.open()
    inside = await last(runtime.generate(plain("A", parrot={"session": session.id})))
    assert inside.text == (await last(runtime.generate(plain("A")))).text
    assert not session.busy
    await runtime.close()


def chain(session):
    """a → b → c, that waits for `in`; its run."""
    parts = {"a": ("A ", ("in",)), "b": ("B ", ("a",)), "c": ("C ", ("b",))}
    calls = [Call(id=f"call_{name}", output=name, request=request(*p)) for name, p in parts.items()]
    session.submit(Body(calls=calls), {"in": None})
    (run,) = session.runs
    return run


@pytest.mark.parametrize(
    ("criteria", "objectives"),
    [
        (Criteria("latency"), ["latency", "latency", "latency"]),
        (Criteria("throughput"), ["throughput", "throughput", "latency"]),
        (Criteria(None, 60_000), ["deadline", "deadline", "latency"]),
        (None, ["latency", "latency", "latency"]),
    ],
)
async def test_how_a_variable_is_waited_for_reaches_its_producers(criteria, objectives):
    runtime = await started(ScriptedEngine())
    session = runtime.sessions.open()
    run = chain(session)
    waiting = asyncio.create_task(session.get("b", criteria))
    await turns()
    session.set("in", "x")
    await asyncio.gather(waiting, run.wait())
    told = [run.result()["calls"][f"call_{name}"]["schedule"] for name in "abc"]
    assert [schedule["objective"] for schedule in told] == objectives
    assert [schedule["because"] for schedule in told[:2]] == (
        ["stated for 'b', which needs this call", "stated for 'b'"]
        if criteria
        else ["nothing was stated: somebody may be waiting"] * 2
    )
    await runtime.close()


async def test_the_strictest_reader_wins():
    runtime = await started(ScriptedEngine())
    session = runtime.sessions.open()
    run = chain(session)
    waiting = [asyncio.create_task(session.get("b", Criteria(o))) for o in ("throughput", "latency", "throughput")]
    await turns()
    session.set("in", "x")
    await asyncio.gather(*waiting, run.wait())
    assert run.result()["calls"]["call_a"]["schedule"]["objective"] == "latency"
    await runtime.close()


@pytest.mark.parametrize("disable", [(), {"single-flight"}])
async def test_a_call_in_the_queue_goes_first_once_somebody_waits_for_it(disable):
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = await started(engine, disable=disable)
    first = asyncio.create_task(last(runtime.generate(plain("first"))))
    await engine.until(running=1)
    session = runtime.sessions.open()
    calls = [{"id": f"call_{o}", "output": o, "request": request(o)} for o in ("a", "b", "c")]
    options = {"session": session.id, "objectives": dict.fromkeys("abc", "throughput")}
    run = runtime.submit(parse_program({"calls": calls, "parrot": options}))
    await turns()
    waiting = asyncio.create_task(session.get("c", Criteria("latency")))
    await turns()
    gate.set()
    await asyncio.gather(first, waiting, run.wait())
    assert said(engine) == ["first", "c", "a", "b"]
    told = run.result()["calls"]["call_c"]["schedule"]
    assert (told["objective"], told["because"]) == ("latency", "stated for 'c'")
    assert run.result()["calls"]["call_a"]["schedule"]["objective"] == "throughput"
    await runtime.close()


async def test_a_wait_that_takes_too_long_ends_and_the_call_goes_on():
    gate = asyncio.Event()
    runtime = await started(ScriptedEngine(gate=gate))
    session = runtime.sessions.open()
    run = chain(session)
    session.set("in", "x")
    with pytest.raises(DeadlineExceeded) as caught:
        await session.get("c", Criteria(None, 20))
    assert caught.value.where == "c"
    gate.set()
    assert await session.get("c")
    assert not run.errors()
    await runtime.close()


@pytest.mark.parametrize(
    ("text", "criteria"),
    [
        ("latency", Criteria("latency")),
        ("throughput", Criteria("throughput")),
        ("deadline_ms=250.5", Criteria(None, 250.5)),
    ],
)
def test_criteria(text, criteria):
    assert parse_criteria(text) == criteria


@pytest.mark.parametrize("text", ["", "fast", "deadline_ms", "deadline_ms=", "deadline_ms=0", "deadline_ms=-1",
                                  "deadline_ms=nan", "deadline_ms=inf", "deadline_ms=soon"])  # fmt: skip
def test_criteria_that_mean_nothing_are_refused(text):
    with pytest.raises(InvalidRequest) as caught:
        parse_criteria(text)
    assert caught.value.where == "criteria"
