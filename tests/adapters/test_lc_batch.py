"""Calls of a model that LangChain makes one by one: one program, the same answers, nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import RunnableLambda
from lc_recorder import Recorder, seen
from lc_shapes import P, shout, step

from semantic_parrot.adapters.langchain import ChatParrot, disabled

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


def test_a_limit_of_the_app_is_kept(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    assert both(server, lambda: [m.content for m in llm.batch(TEXTS, {"max_concurrency": 2})]) == (4, 4)


def test_an_unplannable_call_goes_out_as_it_always_did(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    work = lambda: [m.content for m in llm.batch(["a", "b"], extra_headers={"x": "y"})]  # noqa: E731
    assert both(server, work) == (2, 2)
