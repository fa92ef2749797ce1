"""Claims: an answer is used once, by the request it answers, while the outermost call lasts."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
import scripted_serve
from lc_recorder import WAYS, Recorder, run
from lc_shapes import PROMISED, P, S, step
from live import LiveServer, LocalServer
from scripted import ScriptedEngine, text_of

from semantic_parrot.adapters.langchain import ChatParrot, disabled, stats
from semantic_parrot.adapters.langchain.frames import FRAME
from semantic_parrot.adapters.langchain.planner import PLANNER
from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.runtime import Runtime


def model(server, **more):
    return ChatParrot(base_url=server.url, **{"temperature": 0, "max_retries": 0, **more})


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.fixture
def gated():
    """(server, engine, open): the engine stops after the first word of each answer until `open()`."""
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    with LocalServer(Runtime([engine], grace=0.2, disable={"single-flight"})) as server:
        yield server, engine, lambda: server.call(gate.set)


def executed(server):
    return server.metrics()["parrot_calls_executed_total"]


# Sampling.


def test_a_sample_is_never_used_twice(server):
    llm = model(server, temperature=1)
    twice = {"a": step("A {x}", llm), "b": step("A {x}", llm)} | step("J {a} {b}", llm)
    before = executed(server)
    twice.invoke({"x": "1"})
    assert executed(server) - before == 3


def test_a_second_attempt_is_a_second_execution(server):
    attempts = []

    def fail_once(text: str) -> str:
        attempts.append(text)
        if len(attempts) == 1:
            raise ValueError("not good enough")
        return text

    llm = model(server, temperature=1)
    chain = (step("A {x}", llm) | step("B {y}", llm) | fail_once).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    )
    before = executed(server)
    chain.invoke({"x": "1"})
    assert len(attempts) == 2
    assert executed(server) - before == 4


# Streams.


def test_a_stream_arrives_while_it_is_generated(gated):
    server, engine, open_gate = gated
    chain = step("A {x}", model(server)) | P("B {y}") | model(server) | S()
    chunks = chain.stream({"x": "1"})
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(chunks))
    reader.start()
    until(lambda: engine.running == 1)
    open_gate()
    reader.join(10)
    assert "".join(seen).count(" ") == 2


def test_the_last_call_of_a_stream_is_followed_live(gated):
    server, engine, open_gate = gated
    parallel = PROMISED[2].build(model(server)).first  # three calls that nothing reads
    chunks = parallel.stream({"x": "1"})
    first = next(chunk for chunk in chunks if any(chunk.values()))
    assert engine.running == 3, "the first word is here while all three generate"
    assert next(iter(first.values())).startswith("w")
    open_gate()
    assert len(list(chunks)) > 3


async def test_a_stream_is_followed_live_by_a_task(gated):
    server, engine, open_gate = gated
    parallel = PROMISED[2].build(model(server)).first
    chunks = parallel.astream({"x": "1"})
    async for chunk in chunks:
        if any(chunk.values()):
            break
    assert engine.running == 3
    open_gate()
    assert len([chunk async for chunk in chunks]) > 3


def test_a_stream_that_nobody_reads_starts_nothing(server):
    before = server.requests()
    chunks = PROMISED[0].build(model(server)).stream({"x": "1"})
    assert server.requests() == before
    del chunks
    assert server.requests() == before


class SecondWaits(ScriptedEngine):
    """Prompts that begin with B stop after their first word."""

    def generate(self, request, directions):
        self._gate = asyncio.Event() if "user: B" in text_of(request) else None
        return super().generate(request, directions)


@pytest.fixture
def second_waits():
    engine = SecondWaits()
    with LocalServer(Runtime([engine], grace=0.2, disable={"single-flight"})) as server:
        yield server, engine


@pytest.mark.parametrize("leave", ["close", "collect"])
def test_leaving_a_stream_ends_the_work(second_waits, leave):
    server, engine = second_waits
    # No parser at the end: LangChain reads a model's stream to its end when the parser after it is closed.
    chunks = (step("A {x}", model(server)) | P("B {y}") | model(server)).stream({"x": "1"})
    next(chunk for chunk in chunks if chunk.content)
    assert engine.running == 1
    if leave == "close":
        chunks.close()
    else:
        del chunks
    # One collection does nothing while another thread, such as the server's, is collecting.
    until(lambda: engine.running == 0 or (leave == "collect" and gc.collect() < 0))


async def test_leaving_a_stream_of_a_task_ends_the_work(second_waits):
    server, engine = second_waits
    chunks = (step("A {x}", model(server)) | P("B {y}") | model(server)).astream({"x": "1"})
    async for chunk in chunks:
        if chunk.content:
            break
    assert engine.running == 1
    await chunks.aclose()
    await asyncio.to_thread(until, lambda: engine.running == 0)


def test_context_does_not_leak_between_chunks(server):
    for _ in PROMISED[0].build(model(server)).stream({"x": "1"}):
        assert (SCOPE.get(), FRAME.get(), SITE.get()) == (None, None, None)


# Errors.


@pytest.fixture
def picky():
    """Refuses a prompt with the word FAIL, as a server refuses a prompt that is too long."""

    def fail(request):
        return InvalidRequest("too long", where="messages") if "FAIL" in text_of(request) else None

    with LocalServer(Runtime([ScriptedEngine(fail=fail)])) as server:
        yield server


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_an_error_in_the_middle_is_the_eager_error(picky, way):
    llm = model(picky)
    chain = step("A {x}", llm) | step("FAIL {y}", llm) | step("C {y}", llm)

    def outcome():
        recorder = Recorder()
        with pytest.raises(openai.BadRequestError) as error:
            WAYS[way](chain, {"x": "1"}, {"callbacks": [recorder]})
        return str(error.value), error.value.status_code, error.value.body, recorder.tree()

    with disabled():
        eager = outcome()
    before = picky.requests()
    assert outcome() == eager
    assert picky.requests() - before == 1


def test_a_server_that_goes_in_mid_run_is_an_error_at_once():
    stuck = [sys.executable, str(Path(scripted_serve.__file__)), "serve"]
    with LiveServer("--model", "stuck", command=stuck) as server:
        chain = PROMISED[0].build(model(server))
        raised = []

        def call():
            with pytest.raises(openai.APIConnectionError):
                chain.invoke({"x": "1"})
            raised.append(time.monotonic())

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: server.metrics()["parrot_calls_executed_total"] == 1)
        killed = time.monotonic()
        server.kill()
        caller.join(10)
        assert raised
        assert raised[0] - killed < 1


def test_no_server_at_all_is_the_eager_error():
    llm = ChatParrot(base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        PROMISED[0].build(llm).invoke({"x": "1"})


# Closing.


def test_an_app_that_fails_leaves_no_work_behind(gated):
    server, engine, _ = gated

    def fail(_: object) -> None:
        raise LookupError("of the app")

    llm = model(server)
    chain = {"a": step("A {x}", llm) | step("B {y}", llm), "b": fail}
    from langchain_core.runnables import RunnableParallel

    async def run():
        with pytest.raises(LookupError):
            await RunnableParallel(chain).ainvoke({"x": "1"})
        # The branch that still waits makes its call itself, as it would have done eagerly: end it.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(run())
    until(lambda: engine.running == 0)


def test_wasted_work_is_counted_here_and_on_the_server(server):
    llm = model(server)

    def stop(_: str) -> str:
        raise LookupError("of the app")

    from langchain_core.runnables import RunnableLambda, RunnableParallel

    chain = step("A {x}", llm) | RunnableParallel(
        b=RunnableLambda(stop), c=RunnableLambda(lambda y: y) | step("C {y}", llm)
    )
    before, wasted = stats(), server.metrics()["parrot_unclaimed_tokens_total"]
    with pytest.raises(LookupError):
        chain.invoke({"x": "1"}, {"max_concurrency": 1})
    assert stats().programs == before.programs + 1
    assert server.metrics()["parrot_unclaimed_tokens_total"] >= wasted


# Nothing leaks.


def test_no_mark_reaches_the_app(server):
    spied: list[object] = []

    def spy(value):
        spied.append(value)
        return value

    llm = model(server)
    from langchain_core.runnables import RunnablePassthrough

    chain = (
        RunnablePassthrough.assign(o=step("o {t}", llm) | spy)
        | spy
        | step("d {t} {o}", llm)
        | spy
        | step("e {y}", llm)
        | step("e {y}", llm)
    )
    recorder = Recorder()
    config = {"callbacks": [recorder]}
    chain.invoke({"t": "1"}, config)
    list(chain.stream({"t": "1"}, config))
    asyncio.run(chain.ainvoke({"t": "1"}, config))
    everything = [*spied, *recorder.everything]
    assert len(everything) > 50
    assert not any("\ue000" in repr(value) or "\ue001" in repr(value) for value in everything)
    assert not any("\\ue000" in repr(value) for value in everything)


def test_text_that_looks_like_a_mark_is_text(server):
    llm = model(server)
    chain = P("A \ue0000:text0\ue001 {x}") | llm | S() | P("B \ue000text0\ue001 {y} {{x}}") | llm | S()
    given = {"x": '\ue000:text0\ue001 {y} {"$t": ["a"]}'}
    with disabled():
        eager = chain.invoke(given)
    before = server.requests()
    assert chain.invoke(given) == eager
    assert server.requests() - before == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream-events"])
def test_what_is_planned_alone_is_not_planned_again(server, monkeypatch, way):
    def never(*_):
        raise AssertionError("a call that goes out by itself is planned again")

    chain = step("A {x}", ChatParrot(base_url=server.url, temperature=0, max_retries=0))
    before = server.requests()
    monkeypatch.setattr(PLANNER, "lowering", never)
    assert "w" in run(way, chain, {"x": "1"})
    assert server.requests() - before == 1
