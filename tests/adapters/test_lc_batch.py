"""Calls of a model that LangChain makes one by one: one program, the same answers, nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import RunnableLambda
from lc_recorder import Recorder, seen
from lc_shapes import P, formatted_answer, shout, step
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.core.runtime import Runtime

# Of langchain-openai, eager as well: it adds up usages whose details may be missing.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")

TEXTS = ["a", "b", "a", "c"]


def generated(result):
    return [[generation.text for generation in found] for found in result.generations]


def prompts():
    return [StringPromptValue(text=text) for text in TEXTS]


WAYS = {
    "batch": lambda llm: [m.content for m in llm.batch(TEXTS, {"callbacks": [RECORDER.get()]})],
    "abatch": lambda llm: [m.content for m in asyncio.run(llm.abatch(TEXTS))],
    "exceptions": lambda llm: [m.content for m in llm.batch(TEXTS, return_exceptions=True, stop=["q"])],
    "bound": lambda llm: [m.content for m in llm.bind(max_tokens=2).batch(TEXTS)],
    "generate": lambda llm: generated(llm.generate_prompt(prompts(), stop=["q"])),
    "agenerate": lambda llm: generated(asyncio.run(llm.agenerate_prompt(prompts(), tags=["t"]))),
}


class _Recorders:
    """The recorder of the run that is made."""

    def __init__(self) -> None:
        self.now = Recorder()

    def get(self) -> Recorder:
        return self.now


RECORDER = _Recorders()


def observe(server, work):
    RECORDER.now = Recorder()
    before = server.metrics()
    result = work()
    after = server.metrics()
    trips, executed = (after[name] - before[name] for name in ("parrot_requests_total", "parrot_calls_executed_total"))
    return (result, RECORDER.now.tree(), executed), trips


def both(server, work):
    with disabled():
        eager, many = observe(server, work)
    lowered, few = observe(server, work)
    assert lowered == eager
    return many, few


@pytest.mark.parametrize("way", WAYS)
def test_one_program(server, way):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    assert both(server, lambda: WAYS[way](llm)) == (4, 1)


def test_samples_are_as_many_as_asked_for(server):
    llm = ChatParrot(base_url=server.url, temperature=1, max_retries=0)
    assert both(server, lambda: [m.content for m in llm.batch(["a"] * 3)]) == (3, 1)


def test_after_code_of_the_app_the_calls_and_what_follows_are_one_program(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    chain = step("A {x}", llm) | shout | step("B {y}", llm) | step("C {y}", llm)
    many, few = both(server, lambda: seen(chain.batch([{"x": "1"}, {"x": "2"}, {"x": "3"}])))
    assert (many, few) == (9, 2)


def test_a_batch_inside_a_chain_is_not_submitted_again(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    inner = P("A {x}") | llm
    chain = RunnableLambda(lambda xs: [m.content for m in inner.batch(xs)]) | (lambda xs: xs[0]) | llm
    many, few = both(server, lambda: chain.invoke([{"x": "1"}, {"x": "2"}]).content)
    assert (many, few) == (3, 2)


LIMITED = {
    "batch": lambda llm, config: [m.content for m in llm.batch(TEXTS, config)],
    "abatch": lambda llm, config: [m.content for m in asyncio.run(llm.abatch(TEXTS, config))],
    "chain": lambda llm, config: [m.content for m in (P("A {x}") | llm).batch([{"x": t} for t in TEXTS], config)],
    "map": lambda llm, config: [m.content for m in (P("A {x}") | llm).map().invoke([{"x": t} for t in TEXTS], config)],
    "with_config": lambda llm, config: [m.content for m in llm.with_config(config).batch(TEXTS)],
    "around": lambda llm, config: RunnableLambda(lambda ts: [m.content for m in llm.batch(ts)]).invoke(TEXTS, config),
}


@pytest.mark.parametrize(("limit", "most"), [({}, 4), ({"max_concurrency": 2}, 2), ({"max_concurrency": 1}, 1)])
@pytest.mark.parametrize("way", LIMITED)
def test_a_limit_of_the_app_is_kept(way, limit, most):
    engine = ScriptedEngine(answers=formatted_answer)
    with LocalServer(Runtime([engine], disable={"single-flight"})) as server:
        llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
        before = server.requests()
        answers = LIMITED[way](llm, limit)
        assert server.requests() - before == 1
        assert engine.most == most
        with disabled():
            assert LIMITED[way](llm, limit) == answers


def test_an_unplannable_call_goes_out_as_it_always_did(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    work = lambda: [m.content for m in llm.batch(["a", "b"], extra_headers={"x": "y"})]  # noqa: E731
    assert both(server, work) == (2, 2)
