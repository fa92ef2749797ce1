"""`parrot.max_concurrency`: so many calls of a run at a time, and the same answers."""

import asyncio

import pytest
from programs import program, request
from scripted import ScriptedEngine

from semantic_parrot.core.errors import EngineFailed, InvalidRequest
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime

WIDE = {**{f"a{i}": (f"A{i} ",) for i in range(6)}, "end": tuple((f"a{i}",) for i in range(6))}


async def ran(body, engine):
    runtime = Runtime([engine])
    await runtime.start()
    try:
        run = runtime.submit(body)
        await run.wait()
        return run
    finally:
        await runtime.close()


@pytest.mark.parametrize(("limit", "most"), [({}, 6), ({"max_concurrency": 2}, 2), ({"max_concurrency": 1}, 1)])
async def test_no_more_calls_than_that_are_executed_at_a_time(limit, most):
    engine, free = ScriptedEngine(), ScriptedEngine()
    run = await ran(program(WIDE, parrot=limit), engine)
    assert engine.most == most
    assert run.result()["outputs"] == (await ran(program(WIDE), free)).result()["outputs"]
    assert len(engine.seen) == 7


async def test_the_items_of_a_map_count_too_and_another_run_does_not():
    each = {"id": "m", "over": "list", "item": "x", "bound": 9, "output": "out", "result": "y",
            "calls": [{"id": "c", "output": "y", "request": request("X ", ("x",))}]}  # fmt: skip
    body = {"maps": [each], "inputs": {"list": list("abcde")}, "parrot": {"max_concurrency": 2}}
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = Runtime([engine], disable={"single-flight"})
    await runtime.start()
    first, second = runtime.submit(parse_program(body)), runtime.submit(parse_program(body))
    await engine.until(4)
    gate.set()
    await asyncio.gather(first.wait(), second.wait())
    await runtime.close()
    assert engine.most == 4
    assert len(first.result()["outputs"]["out"]) == 5
    assert first.result()["outputs"] == second.result()["outputs"]


async def test_what_waits_for_its_turn_is_announced_and_can_be_cancelled():
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = Runtime([engine])
    await runtime.start()
    run = runtime.submit(program(WIDE, parrot={"max_concurrency": 1}))
    await engine.until(1)
    told = []
    async for _, event in run.events():
        told.append(event.type)
        if told.count("call.ready") == 6:
            break
    run.cancel()
    await run.wait()
    assert run.status == "cancelled"
    await engine.until(0)
    assert len(engine.seen) == 1
    await runtime.close()


async def test_a_failed_call_gives_its_turn_away():
    engine = ScriptedEngine(fail=lambda _: EngineFailed("lost"))
    run = await ran(program({"a": ("A ",), "b": ("B ",), "c": ("C ",)}, parrot={"max_concurrency": 1}), engine)
    assert run.status == "failed"
    assert len(run.errors()) == 3


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_what_is_no_such_number_is_refused_by_name(bad):
    with pytest.raises(InvalidRequest) as error:
        program(WIDE, parrot={"max_concurrency": bad})
    assert error.value.where == "parrot.max_concurrency"
