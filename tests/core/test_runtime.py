"""Runs on a scripted engine: order of events, failures, cancelling, the queue."""

import asyncio

import pytest
from programs import expected, program, request
from scripted import ScriptedEngine, text_of

from semantic_parrot.core.errors import (
    EngineFailed,
    InvalidRequest,
    NotFound,
    UnknownModel,
)
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import content_key, render

DIAMOND = {"a": ("A ", ("in",)), "b": ("B ", ("a",)), "c": ("C ", ("a",)), "d": (("b",), "+", ("c",))}


async def events_of(run):
    return [event async for _, event in run.events()]


async def test_a_diamond_gives_what_its_calls_give_one_by_one(runtime):
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}, outputs=["d", "a"]))
    await run.wait()
    values = expected(DIAMOND, {"in": "x"})
    assert run.result()["outputs"] == {"d": values["d"], "a": values["a"]}
    assert run.status == "finished"
    assert runtime.calls.executed == 4


async def test_consumers_are_announced_before_their_producer_finishes(runtime):
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}, deltas=["call_d"]))
    told = await events_of(run)
    order = [(e.type, getattr(e, "id", None)) for e in told]
    assert order[0] == ("run.started", run.id)
    assert order[-1] == ("run.finished", run.id)
    for producer, consumer in (("a", "b"), ("a", "c")):
        ready, finished = ("call.ready", f"call_{consumer}"), ("call.finished", f"call_{producer}")
        assert order.index(ready) < order.index(finished)
    keys = {e.id: e.content_key for e in told if e.type == "call.ready"}
    values = expected(DIAMOND, {"in": "x"})
    assert keys == {f"call_{n}": content_key(render(request(*p), values)) for n, p in DIAMOND.items()}
    deltas = "".join(e.text for e in told if e.type == "variable.delta")
    assert deltas == values["d"]


async def test_a_reader_who_comes_late_or_back_misses_nothing(runtime):
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}))
    await run.wait()
    numbered = [pair async for pair in run.events()]
    assert [n for n, _ in numbered] == list(range(1, len(numbered) + 1))
    assert [pair async for pair in run.events(after=4)] == numbered[4:]


async def test_a_failure_keeps_the_rest_and_names_call_and_variable(runtime, engine):
    engine._fail = lambda r: EngineFailed("lost") if text_of(r).startswith("user: B ") else None
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}, outputs=["d", "c"]))
    told = await events_of(run)
    assert run.status == "failed"
    result = run.result()
    assert list(result["outputs"]) == ["c"]
    assert result["errors"]["b"] == {
        "message": "lost", "type": "service_unavailable", "param": None, "code": "engine_failed", "call": "call_b"
    }  # fmt: skip
    assert result["errors"]["d"]["code"] == "dependency_failed"
    order = [(e.type, e.id) for e in told]
    assert order.index(("call.aborted", "call_d")) < order.index(("call.failed", "call_b"))
    (failed,) = [e for e in told if e.type == "call.failed"]
    assert failed.status == 503


async def test_a_bug_below_is_a_typed_error_above(runtime, engine, caplog):
    def broken(_):
        raise ZeroDivisionError

    engine._fail = broken
    run = runtime.submit(program({"a": ("A",)}))
    await run.wait()
    assert run.result()["errors"]["a"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text


async def test_an_empty_prompt_at_run_time_is_an_error_on_that_variable(runtime):
    run = runtime.submit(program({"a": (("in",),), "b": ("B",)}, inputs={"in": ""}))
    await run.wait()
    assert run.result()["errors"]["a"]["code"] == "empty_prompt"
    assert "b" in run.result()["outputs"]


@pytest.mark.parametrize(
    ("changes", "error", "place"),
    [
        ({"model": "nobody"}, UnknownModel, "calls[1].request.model"),
        ({"max_tokens": -1}, InvalidRequest, "calls[1].request.max_tokens"),
        ({"tools": []}, InvalidRequest, "calls[1].request.tools"),
    ],
)
async def test_a_bad_call_stops_the_whole_program(runtime, engine, changes, error, place):
    calls = [
        {"id": "a", "output": "a", "request": request("A")},
        {"id": "b", "output": "b", "request": {**request("B"), **changes}},
    ]
    with pytest.raises(error) as caught:
        runtime.submit(parse_program({"calls": calls}))
    assert caught.value.where == place
    await asyncio.sleep(0)
    assert engine.seen == []


@pytest.mark.parametrize(
    "more", [{"outputs": ["nobody"]}, {"parrot": {"objectives": {"nobody": "latency"}}}, {"inputs": {"in": None}}]
)
async def test_names_that_mean_nothing_are_refused(runtime, more):
    with pytest.raises(InvalidRequest):
        runtime.submit(program({"a": ("A",)}, **more))


async def test_cancel_stops_the_engine_and_aborts_what_waits(runtime, engine):
    engine._gate = asyncio.Event()
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}, deltas="all"))
    async for _, event in run.events():
        if event.type == "variable.delta":
            run.cancel("enough")
    assert run.status == "cancelled"
    assert {e["code"] for e in run.errors().values()} == {"cancelled", "dependency_failed"}
    aborted = [e.id async for _, e in run.events() if e.type == "call.aborted"]
    assert sorted(aborted) == ["call_a", "call_b", "call_c", "call_d"]
    await engine.until(running=0)
    assert engine.cancelled == 1


@pytest.mark.parametrize("lifetime", ["prefetch", "foreground"])
async def test_a_run_nobody_reads_is_cancelled(runtime, engine, lifetime):
    engine._gate = asyncio.Event()
    run = runtime.submit(program({"a": ("A",)}, parrot={"lifetime": lifetime}))
    run.audience.attach()
    run.audience.detach()
    assert run.ended == (lifetime == "prefetch")
    await asyncio.wait_for(run.wait(), 5)
    assert run.status == "cancelled"


async def test_a_foreground_run_survives_a_reconnect(runtime, engine):
    engine._gate = asyncio.Event()
    run = runtime.submit(program({"a": ("A",)}))
    run.audience.attach()
    run.audience.detach()
    run.audience.attach()
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, later.set)  # twice the grace
    await later.wait()
    engine._gate.set()
    await run.wait()
    assert run.status == "finished"


async def test_an_ended_run_is_forgotten_after_the_grace(runtime):
    run = runtime.submit(program({"a": ("A",)}))
    await run.wait()
    assert runtime.run(run.id) is run
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gone.set)
    await gone.wait()
    with pytest.raises(NotFound):
        runtime.run(run.id)


async def test_release_counts_what_nobody_claimed(runtime):
    run = runtime.submit(program({"a": ("A",), "b": ("B",)}))
    await run.wait()
    runtime.release(run, ["call_a", "call_unknown"])
    assert runtime.counters.unclaimed_tokens == 3


@pytest.mark.parametrize("ended", ["finished", "failed", "cancelled"])
async def test_to_cancel_a_run_that_has_ended_changes_nothing(runtime, engine, ended):
    if ended == "failed":
        engine._fail = lambda _: EngineFailed("lost")
    run = runtime.submit(program({"a": ("A",)}))
    if ended == "cancelled":
        run.cancel()
    await run.wait()
    before = run.result()
    assert before["status"] == ended
    run.cancel()
    runtime.release(run, [])
    assert run.result() == before
    assert [event.type async for _, event in run.events()].count("run.finished") == 1


async def test_a_deadline_that_is_past_when_the_run_is_accepted_runs_nothing(runtime, engine):
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}, parrot={"deadline_ms": 1e-6}))
    assert run.ended
    assert {name: error["code"] for name, error in run.errors().items()} == {
        "a": "deadline_exceeded", **dict.fromkeys("bcd", "dependency_failed")
    }  # fmt: skip
    for _ in range(5):
        await asyncio.sleep(0)
    assert (run.status, engine.seen) == ("failed", [])


async def test_a_model_may_be_a_template_of_constants_alone(runtime, engine):
    call = {"id": "a", "output": "x", "request": {**request("A"), "model": {"$t": ["def", "ault"]}}}
    run = runtime.submit(parse_program({"calls": [call]}))
    await run.wait()
    assert (run.status, engine.seen[0].model) == ("finished", "default")
    call["request"]["model"] = {"$t": [{"var": "in"}]}
    with pytest.raises(InvalidRequest, match="known beforehand, and not by variable 'in'") as caught:
        runtime.submit(parse_program({"calls": [call], "inputs": {"in": "default"}}))
    assert caught.value.where == "calls[0].request.model"


async def test_the_window_holds_and_latency_goes_first():
    gate = asyncio.Event()
    engine = ScriptedEngine(window=2, gate=gate)
    runtime = Runtime([engine])
    await runtime.start()
    slow = {f"s{i}": (f"slow {i}",) for i in range(4)}
    batch = runtime.submit(program(slow, parrot={"objectives": dict.fromkeys(slow, "throughput")}))
    await engine.until(running=2)
    chat = runtime.submit(program({"chat": ("chat",)}))
    for _ in range(3):  # the chat gets into the queue
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(batch.wait(), chat.wait())
    order = [text_of(r).removeprefix("user: ") for r in engine.seen]
    assert engine.most == 2
    assert order.index("chat") == 2, order
    await runtime.close()


async def test_work_is_spread_over_engines_and_a_dead_one_is_left_out():
    engines = [ScriptedEngine(), ScriptedEngine()]
    runtime = Runtime(engines)
    await runtime.start()
    await runtime.submit(program({f"v{i}": (f"{i}",) for i in range(8)})).wait()
    assert [len(e.seen) for e in engines] == [4, 4]
    engines[0].healthy = False
    await runtime.submit(program({f"v{i}": (f"{i}",) for i in range(4)})).wait()
    assert [len(e.seen) for e in engines] == [4, 8]
    engines[1].healthy = False
    run = runtime.submit(program({"v": ("x",)}))
    await run.wait()
    assert run.result()["errors"]["v"]["code"] == "engine_failed"
    await runtime.close()


async def test_a_task_cancelled_in_the_queue_takes_no_place():
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = Runtime([engine])
    await runtime.start()
    first = runtime.submit(program({"a": ("A",)}))
    queued = runtime.submit(program({"b": ("B",)}))
    last = runtime.submit(program({"c": ("C",)}))
    await engine.until(running=1)
    queued.cancel()
    gate.set()
    await asyncio.gather(first.wait(), last.wait())
    assert [text_of(r) for r in engine.seen] == ["user: A", "user: C"]
    await runtime.close()


async def test_closing_the_runtime_ends_everything():
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = Runtime([engine])
    await runtime.start()
    run = runtime.submit(program(DIAMOND, inputs={"in": "x"}))
    await asyncio.sleep(0)
    await runtime.close()
    await asyncio.wait_for(run.wait(), 5)
    assert run.status == "cancelled"
