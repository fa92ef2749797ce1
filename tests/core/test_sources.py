"""`parrot.sources`: what a client says of values that it carried from one run to another."""

import pytest
from programs import program, request
from scripted import ScriptedEngine

from semantic_parrot.core.errors import DanglingReference, InvalidRequest
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.report import report
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.snapshot import snapshot

CHAIN = {"a": ("A ",), "b": ("B ", ("a",))}
HERE, THERE = {"run": "run_1", "call": "x"}, {"run": "run_2", "call": "m[0].y"}


def drawn(run):
    return {call["id"]: call["outside"] for call in report(snapshot(run))["calls"]}


async def ran(body):
    runtime = Runtime([ScriptedEngine()])
    await runtime.start()
    run = runtime.submit(body)
    before = drawn(run)
    await run.wait()
    await runtime.close()
    return run, before


async def test_they_are_drawn_and_change_nothing_else():
    told, before = await ran(program(CHAIN, parrot={"sources": {"call_a": [HERE, HERE], "call_b": [THERE]}}))
    untold, _ = await ran(program(CHAIN))
    assert before == drawn(told) == {"call_a": [HERE], "call_b": [THERE]}
    assert drawn(untold) == {"call_a": [], "call_b": []}
    assert told.result()["outputs"] == untold.result()["outputs"]


async def test_those_of_a_map_are_those_of_the_calls_in_it():
    each = {"id": "m", "over": "list", "item": "x", "bound": 9, "output": "out", "result": "y",
            "calls": [{"id": "c", "output": "y", "request": request("X ", ("x",))}]}  # fmt: skip
    run, _ = await ran(
        parse_program({"maps": [each], "inputs": {"list": ["p", "q"]}, "parrot": {"sources": {"m": [HERE]}}})
    )
    assert list(drawn(run).values()) == [[HERE], [HERE]]


@pytest.mark.parametrize(
    ("sources", "kind", "where"),
    [
        ({"nobody": [HERE]}, DanglingReference, "parrot.sources.nobody"),
        ({"call_a": HERE}, InvalidRequest, "parrot.sources.call_a"),
        ({"call_a": [{"run": "r"}]}, InvalidRequest, "parrot.sources.call_a[0].call"),
        ({"call_a": [{**HERE, "more": 1}]}, InvalidRequest, "parrot.sources.call_a[0].more"),
        ({"call_a": [HERE] * 17}, InvalidRequest, "parrot.sources.call_a"),
        (["call_a"], InvalidRequest, "parrot.sources"),
    ],
)
def test_what_is_wrong_is_refused_by_name(sources, kind, where):
    with pytest.raises(kind) as error:
        program(CHAIN, parrot={"sources": sources})
    assert error.value.where == where
