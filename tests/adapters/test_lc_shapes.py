"""Every shape, every way of calling: the same results and run trees as eager, in as few round trips as promised.

What is promised and is no chain of runnables alone is in other tests: bad JSON in test_lc_attempts, LangGraph and the
document chains in test_lc_langgraph and test_lc_classic.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from lc_more_shapes import CORRECT
from lc_recorder import WAYS, Recorder, run
from lc_shapes import FORMATTED, PROMISED, Shape

from semantic_parrot.adapters.langchain import ChatParrot, disabled, explain


@dataclass(frozen=True)
class Seen:
    result: str
    tree: object
    trips: int
    executed: int


def observe(shape: Shape, way: str, server) -> Seen:
    recorder = Recorder()
    chain = shape.build(ChatParrot(base_url=server.url, temperature=0, max_retries=0))
    before = server.metrics()
    result = run(way, chain, shape.input, recorder)
    after = server.metrics()
    trips, executed = (
        int(after[name] - before[name]) for name in ("parrot_requests_total", "parrot_calls_executed_total")
    )
    return Seen(result, recorder.tree(), trips, executed)


def both(shape: Shape, way: str, server) -> tuple[Seen, Seen]:
    with disabled():
        eager = observe(shape, way, server)
    return eager, observe(shape, way, server)


#: Of the shapes beyond the promised ones, ways that between them take every path.
FEWER_WAYS = ("invoke", "abatch", "stream", "astream-events")
CASES = [
    pytest.param(shape, way, id=f"{shape.name}-{way}")
    for shape in PROMISED + FORMATTED + CORRECT
    for way in (FEWER_WAYS if shape in CORRECT else WAYS)
    if shape.streams or "stream" not in way
]


@pytest.mark.parametrize(("shape", "way"), CASES)
def test_a_lowered_run_is_an_eager_run(shape, way, server):
    eager, lowered = both(shape, way, server)
    assert not lowered.result.startswith("raised")
    assert lowered.result == eager.result
    assert lowered.tree == eager.tree
    assert lowered.executed == eager.executed, "a call was executed twice, or for nothing"
    assert lowered.trips <= eager.trips
    if "batch" not in way:
        promised = (shape.streamed if "stream" in way else None) or shape.trips
        assert (eager.trips, lowered.trips) == promised
    elif shape not in CORRECT and "exceptions" not in way:
        assert lowered.trips == (shape.batched or shape.trips[1])


FORESEEN = [shape for shape in PROMISED + FORMATTED if not shape.hidden]


@pytest.mark.parametrize("shape", FORESEEN, ids=lambda shape: shape.name)
def test_explain_expects_the_round_trips_that_are_made(shape, server):
    chain = shape.build(ChatParrot(base_url=server.url, temperature=0))
    before = server.requests()
    explained = explain(chain, shape.input)
    assert server.requests() == before, "explaining runs nothing"
    assert explained.round_trips == shape.trips[1]


def test_sixteen_threads_run_forty_fan_outs_in_forty_round_trips(server):
    from concurrent.futures import ThreadPoolExecutor

    chain = PROMISED[2].build(ChatParrot(base_url=server.url, temperature=0))
    inputs = [{"x": str(i)} for i in range(40)]
    with disabled():
        eager = [chain.invoke(given) for given in inputs]
    before = server.metrics()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(chain.invoke, inputs)) == eager
    after = server.metrics()
    assert after["parrot_requests_total"] - before["parrot_requests_total"] == 40
    assert after["parrot_calls_executed_total"] - before["parrot_calls_executed_total"] == 160


async def test_forty_tasks_run_forty_fan_outs_in_forty_round_trips(server):
    import asyncio

    chain = PROMISED[2].build(ChatParrot(base_url=server.url, temperature=0))
    inputs = [{"x": str(i)} for i in range(40)]
    with disabled():
        eager = await asyncio.gather(*(chain.ainvoke(given) for given in inputs))
    before = server.requests()
    assert await asyncio.gather(*(chain.ainvoke(given) for given in inputs)) == eager
    assert server.requests() - before == 40
