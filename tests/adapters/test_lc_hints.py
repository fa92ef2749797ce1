"""Hints in a config's metadata, and what follows without them: how they reach the engine. And the app's trace."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_core.runnables import RunnableLambda
from lc_shapes import P, step
from live import LocalServer
from plain_server import PlainServer
from scripted import ScriptedEngine

from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.runtime import Runtime

LATENCY, DEADLINE, THROUGHPUT = 0, 1, 2


@pytest.fixture
def engine(server):
    (engine,) = server.runtime.engines
    engine.directed.clear()
    return engine


@pytest.fixture
def llm(server):
    return ChatParrot(base_url=server.url, temperature=0, max_retries=0)


def told(**hints):
    return {"metadata": {"parrot": hints}}


def ranks(engine):
    return [directions.rank for directions in engine.directed]


def two(llm):
    return step("A {x}", llm) | P("B {y}") | llm


WAYS = {
    "invoke": lambda chain, given, config: chain.invoke(given, config),
    "ainvoke": lambda chain, given, config: asyncio.run(chain.ainvoke(given, config)),
    "stream": lambda chain, given, config: list(chain.stream(given, config)),
    "batch": lambda chain, given, config: chain.batch([given], config),
    "with_config": lambda chain, given, config: chain.with_config(config).invoke(given),
    "in a function": lambda chain, given, config: RunnableLambda(lambda x: chain.invoke(x)).invoke(given, config),
}
HINTS = [({}, LATENCY), ({"objective": "throughput"}, THROUGHPUT), ({"deadline_ms": 60_000}, DEADLINE)]


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize(("hints", "rank"), HINTS)
@pytest.mark.parametrize("way", WAYS)
def test_hints_reach_the_engine(engine, llm, way, hints, rank, planned):
    chain, given, config = two(llm), {"x": way}, told(**hints)
    if planned:
        WAYS[way](chain, given, config)
    else:
        with disabled():
            WAYS[way](chain, given, config)
    assert ranks(engine) == [rank, rank]


@pytest.mark.parametrize("way", WAYS)
def test_hints_of_a_call_on_its_own(engine, llm, way):
    WAYS[way](llm, "x", told(objective="throughput"))
    assert ranks(engine) == [THROUGHPUT]


def test_what_the_app_puts_into_the_body_itself_wins(engine, llm):
    own = llm.bind(extra_body={"parrot": {"objective": "latency"}, "top_k": 3})
    own.invoke("x", told(objective="throughput"))
    assert ranks(engine) == [LATENCY]
    assert engine.seen[-1].sampling.top_k == 3


@pytest.mark.parametrize("planned", [False, True])
def test_priorities_reach_the_engine(engine, llm, planned):
    app, given = (two(llm), {"x": "1"}) if planned else (llm, "x")
    app.invoke(given, told(priority=7))
    assert {directions.priority for directions in engine.directed} == {7}


@pytest.mark.parametrize(("inputs", "rank"), [(4, LATENCY), (5, THROUGHPUT)])
@pytest.mark.parametrize("what", ["a chain", "the model"])
def test_a_batch_over_more_than_a_few_is_for_throughput(engine, llm, inputs, rank, what):
    if what == "a chain":
        two(llm).batch([{"x": str(i)} for i in range(inputs)])
    else:
        llm.batch([str(i) for i in range(inputs)])
    assert set(ranks(engine)) == {rank}


def test_a_batch_that_says_otherwise(engine, llm):
    llm.batch([str(i) for i in range(5)], told(objective="latency"))
    assert set(ranks(engine)) == {LATENCY}


@pytest.mark.parametrize("planned", [False, True])
def test_a_deadline_that_passes_is_an_error_of_the_openai_client(planned):
    gate = asyncio.Event()  # which nobody opens
    with LocalServer(Runtime([ScriptedEngine(gate=gate)])) as server:
        llm = ChatParrot(base_url=server.url, temperature=0, max_retries=2)
        app = two(llm) if planned else llm
        with pytest.raises(openai.InternalServerError, match="deadline") as failed:
            app.invoke({"x": "1"} if planned else "x", told(deadline_ms=50))
        assert failed.value.status_code == 504
        assert server.requests() <= 2, "nobody tries again what is late"


@pytest.mark.parametrize(
    ("hints", "field"),
    [
        ({"objective": "fast"}, "objective"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"priority": 101}, "priority"),
        ({"urgent": True}, "urgent"),
    ],
)
def test_hints_that_mean_nothing_are_refused_by_name(server, llm, hints, field):
    before = server.requests()
    for app, given in ((llm, "x"), (two(llm), {"x": "1"})):
        with pytest.raises(InvalidRequest, match=rf"metadata\.parrot\.{field}"):
            app.invoke(given, told(**hints))
    assert server.requests() == before


# The app's trace.


@pytest.mark.parametrize("planned", [False, True])
def test_requests_carry_the_running_span(planned):
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=trace.TraceFlags(1))
    with PlainServer() as plain:
        llm = ChatParrot(base_url=plain.url, max_retries=0)
        app, given = (two(llm), {"x": "1"}) if planned else (llm, "x")
        app.invoke(given)
        with trace.use_span(trace.NonRecordingSpan(context)):
            app.invoke(given)
            asyncio.run(app.ainvoke(given))
    expected = f"00-{0xA1:032x}-{0xB2:016x}-01"
    found = [headers.get("traceparent") for _, headers, _ in plain.seen]
    bare = 3 if planned else 1
    assert found == [None] * bare + [expected] * (len(found) - bare)
    assert {path for path, _, _ in plain.seen} == {"/v1/chat/completions"} | ({"/v1/runs"} if planned else set())
