"""Which of several engines fills a prompt ahead, and that the call goes there, unless it can't."""

import asyncio

import pytest
from scripted import ScriptedEngine, answer, text_of

from semantic_parrot.core import ahead, fills
from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import render, template

LONG = "The reader's own instructions, which are long enough to be worth a place of their own. " * 20


def request(*parts, model="default"):
    return {"model": model, "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}]}


def program(calls, **more):
    return parse_program({"calls": [{"id": o, "output": o, "request": r} for o, r in calls.items()], **more})


CHAIN = {"a": request("Begin"), "b": request(LONG, ("a",))}


def expected(calls):
    values = {}
    for name, body in calls.items():
        values[name] = answer(parse_request(render(body, values)))
    return values


def engines(count, gate, **options):
    return [ScriptedEngine(name=f"e{i}", gate=gate, **options) for i in range(count)]


async def started(engines, **options):
    runtime = Runtime(engines, **options)
    await runtime.start()
    return runtime


async def first_to_be(engines, awaited):
    """The engine of which `awaited(engine)` comes true first."""
    tasks = {asyncio.create_task(awaited(e)): e for e in engines}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return tasks[done.pop()]


def asked(engine):
    return [key[1] for key, r in engine.prefills if r is not None]


def ran(engine, start):
    return [r for r in engine.seen if text_of(r).startswith(f"user: {start}")]


async def test_the_call_goes_where_its_prompt_was_filled():
    gate = asyncio.Event()
    three = engines(3, gate)
    runtime = await started(three)
    run = runtime.submit(program(CHAIN))
    filled = await first_to_be(three, lambda e: e.until_asked(1))
    gate.set()
    await run.wait()
    assert [asked(e) for e in three if e is not filled] == [[], []]
    assert len(ran(filled, LONG)) == 1
    schedule = run.result()["calls"]["b"]["schedule"]
    assert (schedule["engine"], schedule["why"]) == (filled.name, "prefix-held")
    assert schedule["prefix"]["tokens"] > 100
    assert filled.prefills[-1] == (filled.prefills[0][0], None)
    assert run.outputs() == {"b": expected(CHAIN)["b"]}
    await runtime.close()


async def test_the_engine_that_holds_the_constant_gets_the_rest():
    gate = asyncio.Event()
    gate.set()
    three = engines(3, gate)
    runtime = await started(three)
    await runtime.submit(program({"x": request("Begin"), "y": request(LONG, ("x",))})).wait()
    (holder,) = [e for e in three if ran(e, LONG)]
    before = len(asked(holder))
    gate.clear()
    calls = {"a": request("Begin"), "b": request(LONG, ("doc",), " and ", ("a",))}
    run = runtime.submit(program(calls, inputs={"doc": "a ship"}))
    await holder.until_asked(before + 1)
    gate.set()
    await run.wait()
    assert "b" in asked(holder)
    assert run.result()["calls"]["b"]["schedule"]["engine"] == holder.name
    await runtime.close()


async def test_of_equal_engines_it_is_the_producers():
    gate = asyncio.Event()
    two = engines(2, gate)
    runtime = await started(two)
    other = runtime.submit(program({"z": request("Something else")}))
    await first_to_be(two, lambda e: e.until(running=1))
    run = runtime.submit(program(CHAIN))
    for e in two:
        await e.until(running=1)
    near = await first_to_be(two, lambda e: e.until_asked(1))
    assert len(ran(near, "Begin")) == 1
    gate.set()
    await asyncio.gather(run.wait(), other.wait())
    await runtime.close()


async def test_a_full_engine_is_passed_by():
    gate, full = asyncio.Event(), asyncio.Event()
    two = engines(2, gate, window=1)
    runtime = await started(two)
    run = runtime.submit(program(CHAIN))
    filled = await first_to_be(two, lambda e: e.until_asked(1))
    (other,) = [e for e in two if e is not filled]
    filled._gate = full  # what runs there from now on stays
    blocking = runtime.submit(program({"z": request("Something else")}))
    await filled.until(running=1)
    gate.set()
    await run.wait()
    assert len(ran(other, LONG)) == 1
    assert run.outputs() == {"b": expected(CHAIN)["b"]}
    full.set()
    await blocking.wait()
    await runtime.close()


async def test_a_dead_engine_is_forgotten():
    gate = asyncio.Event()
    two = engines(2, gate)
    runtime = await started(two)
    run = runtime.submit(program(CHAIN))
    filled = await first_to_be(two, lambda e: e.until_asked(1))
    (other,) = [e for e in two if e is not filled]
    filled.healthy = False
    gate.set()
    await run.wait()
    assert len(ran(other, LONG)) == 1
    assert run.outputs() == {"b": expected(CHAIN)["b"]}
    await runtime.close()


async def test_it_is_an_engine_of_the_calls_own_model():
    gate = asyncio.Event()
    small, large = ScriptedEngine(("small",), gate=gate), ScriptedEngine(("large",), gate=gate)
    runtime = await started([small, large])
    calls = {"a": request("Begin", model="small"), "b": request(LONG, ("a",), model="large")}
    run = runtime.submit(program(calls))
    await large.until_asked(1)
    gate.set()
    await run.wait()
    assert (asked(small), asked(large)) == ([], ["b"])
    await runtime.close()


async def test_engines_that_cannot_are_passed_by():
    gate = asyncio.Event()
    two = engines(2, gate)
    runtime = await started(two)
    blocking = runtime.submit(program({"z": request("Something else")}))
    busy = await first_to_be(two, lambda e: e.until(running=1))
    (idle,) = [e for e in two if e is not busy]
    idle.abilities = frozenset()
    run = runtime.submit(program(CHAIN))
    await busy.until_asked(1)
    gate.set()
    await asyncio.gather(run.wait(), blocking.wait())
    assert asked(idle) == []
    await runtime.close()


@pytest.mark.parametrize("most", [1, 2])
async def test_each_engine_fills_a_bounded_number(monkeypatch, most):
    monkeypatch.setattr(fills, "MOST", most)
    gate = asyncio.Event()
    two = engines(2, gate)
    runtime = await started(two)
    calls = {"a": request("Begin"), **{f"b{i}": request(f"{i}. {LONG}", ("a",)) for i in range(6)}}
    run = runtime.submit(program(calls))
    for e in two:
        await e.until_asked(most)
    gate.set()
    await run.wait()
    for e in two:
        filling, peak = set(), 0
        for key, r in e.prefills:
            filling = filling | {key} if r is not None else filling - {key}
            peak = max(peak, len(filling))
        assert peak == most
        assert not filling
    assert run.outputs() == {f"b{i}": expected(calls)[f"b{i}"] for i in range(6)}
    await runtime.close()


async def test_another_call_with_that_beginning_goes_there_too():
    gate = asyncio.Event()
    two = engines(2, gate)
    runtime = await started(two)
    run = runtime.submit(program(CHAIN))
    filled = await first_to_be(two, lambda e: e.until_asked(1))
    (other,) = [e for e in two if e is not filled]
    blocking = runtime.submit(program({"z": request("Something else")}))  # the two are equally full, or `filled` fuller
    await asyncio.gather(filled.until(running=1), other.until(running=1))
    sibling = runtime.submit(program({"c": request(LONG, "and not what was asked before")}))
    await filled.until(running=2)
    assert len(ran(filled, LONG)) == 1
    gate.set()
    await asyncio.gather(run.wait(), blocking.wait(), sibling.wait())
    await runtime.close()


class Talker(ScriptedEngine):
    """Says many words for "Begin": half of them, then on `spoken` the rest, and ends on `ended`."""

    async def generate(self, request, directions):
        async for item in super().generate(request, directions):
            if text_of(request) == "user: Begin" and isinstance(item, Delta):
                for i in range(40):
                    yield Delta(f"word{i} ")
                    if i == 20:
                        await self.spoken.wait()
                await self.ended.wait()
                yield Done("".join(f"word{i} " for i in range(40)), "stop", Usage(1, 0, 40))
                return
            yield item


async def talking(count, monkeypatch):
    monkeypatch.setattr(ahead, "EVERY", 40)
    talkers = [Talker(name=f"e{i}") for i in range(count)]
    spoken = asyncio.Event()
    for e in talkers:
        e.spoken, e.ended = spoken, asyncio.Event()
    return talkers, spoken, await started(talkers)


SHORT = {"a": request("Begin"), "b": request(("a",), " is what was said.")}


async def test_where_the_producers_text_was_filled_counts_by_itself(monkeypatch):
    three, spoken, runtime = await talking(3, monkeypatch)
    run = runtime.submit(program(SHORT))
    filled = await first_to_be(three, lambda e: e.until_asked(1))
    spoken.set()
    three[0].ended.set()
    await run.wait()
    schedule = run.result()["calls"]["b"]["schedule"]
    assert (schedule["engine"], schedule["why"]) == (filled.name, "prefix-held")
    assert filled is not three[0]  # where it would have gone otherwise
    await runtime.close()


async def test_what_a_dead_engine_filled_goes_on_elsewhere(monkeypatch):
    three, spoken, runtime = await talking(3, monkeypatch)
    run = runtime.submit(program(SHORT))
    dead = await first_to_be(three, lambda e: e.until_asked(1))
    dead.healthy = False
    spoken.set()
    await first_to_be([e for e in three if e is not dead], lambda e: e.until_asked(1))
    for talker in three:
        talker.ended.set()
    await run.wait()
    assert run.status == "finished"
    assert dead.prefills[-1][1] is None
    await runtime.close()
