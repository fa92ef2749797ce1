"""What the scheduler does on a run: single flight, deadlines, priorities, explanations; answers never change."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedEngine, answer, text_of

from semantic_parrot.core.errors import EngineFailed, InvalidRequest
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.scheduling import OPTIMISATIONS
from semantic_parrot.core.wire import render, template

SYSTEM = "You are the harbour master's assistant, and you answer in one short sentence. "


def request(*parts, **more):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}], **more}


def program(calls, *, changes=None, **more):
    """`calls`: output -> parts of its prompt. `changes`: to every request."""
    listed = [{"id": f"call_{o}", "output": o, "request": request(*p, **(changes or {}))} for o, p in calls.items()]
    return parse_program({"calls": listed, **more})


async def started(engines, **options):
    runtime = Runtime(engines, grace=0.05, **options)
    await runtime.start()
    return runtime


async def test_equal_greedy_calls_under_way_run_once():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    first = runtime.submit(program({"a": ("A",), "b": ("B ", ("a",))}, deltas="all"))
    await engine.until(running=1)
    second = runtime.submit(program({"x": ("A",), "y": ("B ", ("x",))}, deltas="all"))
    for _ in range(3):  # its first call joins the flight
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first.wait(), second.wait())
    assert runtime.calls.executed == 2
    assert first.session.graph.variables["b"].value == second.session.graph.variables["y"].value
    for run, names in ((first, "ab"), (second, "xy")):
        told = [event async for _, event in run.events()]
        for name in names:
            text = "".join(e.text for e in told if e.type == "variable.delta" and e.variable == name)
            assert text == run.session.graph.variables[name].value
    flags = [
        run.result()["calls"][c]["schedule"]["single_flight"] for run, c in ((first, "call_a"), (second, "call_x"))
    ]
    assert flags == [False, True]
    assert first.result()["calls"]["call_a"]["response"]["id"] != second.result()["calls"]["call_x"]["response"]["id"]
    again = runtime.submit(program({"a": ("A",)}))  # nothing is under way: this is no cache
    await again.wait()
    assert runtime.calls.executed == 3
    await runtime.close()


@pytest.mark.parametrize("changes", [{"temperature": 1}, {"temperature": 0.5, "seed": 1}])
async def test_samples_are_never_shared(changes):
    engine = ScriptedEngine()
    runtime = await started([engine])
    await runtime.submit(program({"a": ("A",), "b": ("A",)}, changes=changes)).wait()
    assert runtime.calls.executed == 2
    await runtime.close()


@pytest.mark.parametrize("leader", [True, False])
async def test_one_that_is_cancelled_takes_nothing_from_the_other(leader):
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    runs = [runtime.submit(program({"a": ("A",)})), runtime.submit(program({"a": ("A",)}))]
    await engine.until(running=1)
    gone, other = runs if leader else reversed(runs)
    gone.cancel()
    gate.set()
    await other.wait()
    assert (gone.status, other.status, engine.cancelled) == ("cancelled", "finished", 0)
    await runtime.close()


async def test_when_all_are_cancelled_the_engine_stops():
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = await started([engine])
    runs = [runtime.submit(program({"a": ("A",)})) for _ in range(3)]
    await engine.until(running=1)
    for run in runs:
        run.cancel()
    await engine.until(running=0)
    assert engine.cancelled == 1
    await runtime.close()


async def test_a_failure_of_one_flight_reaches_all_who_wait():
    engine = ScriptedEngine(fail=lambda _: EngineFailed("lost"))
    runtime = await started([engine])
    runs = [runtime.submit(program({"a": ("A",)})) for _ in range(3)]
    await asyncio.gather(*(run.wait() for run in runs))
    assert [run.result()["errors"]["a"]["code"] for run in runs] == ["engine_failed"] * 3
    assert len(engine.seen) == 1
    await runtime.close()


async def test_a_latency_call_that_joins_a_queued_flight_takes_it_along():
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = await started([engine])
    blocking = runtime.submit(program({"z": ("Z",)}))
    slow = runtime.submit(program({"a": ("A",), "b": ("B",)}, parrot={"objectives": dict.fromkeys("ab", "throughput")}))
    await engine.until(running=1)
    chat = runtime.submit(program({"b": ("B",)}))
    for _ in range(3):  # the chat's task joins the flight
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocking.wait(), slow.wait(), chat.wait())
    assert [text_of(r) for r in engine.seen] == ["user: Z", "user: B", "user: A"]
    await runtime.close()


@pytest.mark.parametrize("value", [0, -5, float("inf"), float("nan"), "1", 1e12])
def test_a_deadline_that_is_none_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        program({"a": ("A",)}, parrot={"deadline_ms": value})
    assert caught.value.where == "parrot.deadline_ms"


@pytest.mark.parametrize("value", [101, -101, 1.5, "high"])
def test_a_priority_out_of_range_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        program({"a": ("A",)}, parrot={"priority": value})
    assert caught.value.where == "parrot.priority"


async def test_what_is_not_there_at_the_deadline_is_an_error():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    run = runtime.submit(program({"a": ("A",), "b": ("B ", ("a",))}, parrot={"deadline_ms": 20}))
    await asyncio.wait_for(run.wait(), 5)
    assert run.status == "failed"
    assert {v: e["code"] for v, e in run.errors().items()} == {"a": "deadline_exceeded", "b": "dependency_failed"}
    await engine.until(running=0)
    assert engine.cancelled == len(engine.seen)  # on a busy machine the deadline may come before its turn
    await runtime.close()


async def test_a_deadline_that_is_kept_changes_nothing():
    runtime = await started([ScriptedEngine()])
    run = runtime.submit(program({"a": ("A",)}, parrot={"deadline_ms": 60_000}))
    await run.wait()
    assert run.status == "finished"
    assert run.result()["calls"]["call_a"]["schedule"]["objective"] == "deadline"
    await runtime.close()


async def test_the_higher_priority_goes_first():
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = await started([engine])
    runs = [runtime.submit(program({"a": ("first",)}))]
    await engine.until(running=1)
    for text, priority in (("low", -1), ("middle", 0), ("high", 5)):
        runs.append(runtime.submit(program({"a": (text,)}, parrot={"priority": priority})))
    for _ in range(3):  # they get into the queue
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*(run.wait() for run in runs))
    assert [text_of(r).removeprefix("user: ") for r in engine.seen] == ["first", "high", "middle", "low"]
    await runtime.close()


@pytest.mark.parametrize("disable", [(), ("critical-path",), ("preemption",)])
async def test_an_engine_is_told_the_order_within_a_rank(disable):
    engine = ScriptedEngine(window=1)
    runtime = await started([engine], disable=frozenset(disable))
    calls = {"a": ("A",), "b": ("B ", ("a",)), "c": ("C",)}
    await runtime.submit(program(calls, parrot={"priority": 2})).wait()
    told = {text_of(r)[6]: d for r, d in zip(engine.seen, engine.directed, strict=True)}
    assert {d.priority for d in told.values()} == {0 if "critical-path" in disable else 2}
    if "critical-path" in disable:
        assert {d.slack for d in told.values()} == {0.0}
    else:  # what nothing waits for has the most time
        assert told["A"].slack < told["C"].slack
        assert told["B"].slack < told["C"].slack
    await runtime.close()


async def test_each_call_says_how_it_was_scheduled():
    runtime = await started([ScriptedEngine(), ScriptedEngine()])
    calls = {f"s{i}": (SYSTEM, f"entry {i}") for i in range(4)}
    calls["report"] = ("Merge: ", *((name,) for name in calls))
    run = runtime.submit(program(calls, parrot={"objectives": {"report": "latency"}}))
    await run.wait()
    told = {name: call["schedule"] for name, call in run.result()["calls"].items()}
    one = told["call_s2"]
    assert (one["objective"], one["because"]) == ("latency", "stated for 'report', which needs this call")
    assert one["group_size"] == 4
    assert len({told[f"call_s{i}"]["task_group"] for i in range(4)}) == 1
    assert one["prefix"]["count"] == 4
    assert one["prefix"]["calls"] == ["call_s0", "call_s1", "call_s3"]
    assert one["engine"] == "scripted-0"
    assert one["why"] == "task-group"
    assert one["predicted"] > 0
    assert told["call_report"]["because"] == "stated for 'report'"
    assert told["call_report"]["task_group"] is None
    await runtime.close()


@st.composite
def programs(draw):
    n = draw(st.integers(1, 8))
    calls = {}
    for i in range(n):
        reads = draw(st.sets(st.sampled_from(["in", *(f"v{j}" for j in range(i))]), max_size=3))
        text = draw(st.sampled_from(["", SYSTEM, "other "]))
        calls[f"v{i}"] = (text, *((r,) for r in sorted(reads)), draw(st.sampled_from(["!", f" {i}"])))
    stated = draw(st.dictionaries(st.sampled_from(sorted(calls)), st.sampled_from(["latency", "throughput"])))
    options = {"objectives": stated, "priority": draw(st.integers(-2, 2))}
    if draw(st.booleans()):
        options["deadline_ms"] = 60_000
    return calls, options


@settings(max_examples=25, deadline=None)
@given(
    st.lists(programs(), min_size=1, max_size=4),
    st.sets(st.sampled_from(sorted(OPTIMISATIONS))),
    st.sets(st.integers(0, 7), max_size=2),
    st.sampled_from([None, 0, 1]),
)
def test_every_reader_is_answered_and_optimisations_change_no_text(submitted, disable, failing, cancelled):
    """Programs at once on small engines, some calls failing, one run cancelled: what has a value has the right one."""

    async def scenario(disabled):
        def fail(r):
            bad = any(text_of(r).endswith(f" {i}") for i in failing)
            return EngineFailed("lost") if bad else None

        engines = [ScriptedEngine(window=2, fail=fail) for _ in range(2)]
        runtime = await started(engines, disable=disabled)
        runs = [runtime.submit(program(c, inputs={"in": "x"}, outputs=[*c], parrot=o)) for c, o in submitted]
        if cancelled is not None and cancelled < len(runs):
            await asyncio.sleep(0)
            runs[cancelled].cancel()
        async with asyncio.timeout(20):
            for run in runs:
                await run.wait()
        results = [run.result() for run in runs]
        await runtime.close()
        assert all(engine.running == 0 for engine in engines)
        assert all(s.decider.fleet.engines[i].n == 0 for s in runtime.calls.schedulers for i in range(2))
        return runs, results

    runs, results = asyncio.run(scenario(frozenset(disable)))
    _, plain = asyncio.run(scenario(OPTIMISATIONS))
    for i, ((calls, _), run, result) in enumerate(zip(submitted, runs, results, strict=True)):
        assert run.ended
        values = {"in": "x"}
        for name, parts in calls.items():
            assert (name in result["outputs"]) != (name in result["errors"])
            if name in result["outputs"]:
                values[name] = answer(parse_request(render(request(*parts), values)))
                assert result["outputs"][name] == values[name]
        if i != cancelled:
            assert result["outputs"] == plain[i]["outputs"]
