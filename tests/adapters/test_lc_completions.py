"""ParrotLLM: completion models, as LangChain's own class for OpenAI has them, planned as chat models are."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_openai import OpenAI
from lc_recorder import WAYS as RUNS
from lc_recorder import Recorder, run
from plain_server import PlainServer

from semantic_parrot.adapters.langchain import ChatParrot, ParrotLLM, disabled, explain
from semantic_parrot.core.errors import InvalidRequest

PROMPTS = ["one fish", "two fish", "red fish"]


@pytest.fixture
def llm(server):
    return ParrotLLM(base_url=server.url, temperature=0, max_retries=0)


@pytest.fixture
def expected(server):
    """What the stock class gets, one prompt at a time, as its streams ask for it."""
    stock = OpenAI(base_url=server.url, api_key="k", model="default", temperature=0, streaming=True, max_retries=0)
    return [stock.invoke(prompt) for prompt in PROMPTS]


async def collected(stream):
    return [chunk async for chunk in stream]


WAYS = {
    "invoke": lambda llm: [llm.invoke(prompt) for prompt in PROMPTS],
    "ainvoke": lambda llm: [asyncio.run(llm.ainvoke(prompt)) for prompt in PROMPTS],
    "batch": lambda llm: llm.batch(PROMPTS),
    "abatch": lambda llm: asyncio.run(llm.abatch(PROMPTS)),
    "stream": lambda llm: ["".join(llm.stream(prompt)) for prompt in PROMPTS],
    "astream": lambda llm: ["".join(asyncio.run(collected(llm.astream(prompt)))) for prompt in PROMPTS],
    "streaming": lambda llm: [llm.model_copy(update={"streaming": True}).invoke(prompt) for prompt in PROMPTS],
    "a chain": lambda llm: (PromptTemplate.from_template("{a} fish") | llm).batch(
        [{"a": prompt.split()[0]} for prompt in PROMPTS]
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_answers_of_the_stock_class(server, llm, expected, way):
    before = server.requests()
    assert WAYS[way](llm) == expected
    assert server.requests() - before == (1 if way in ("batch", "abatch", "a chain") else len(PROMPTS))


def test_tokens_of_several_prompts_are_added_up(llm):
    together = llm.generate(PROMPTS)
    alone = [llm.generate([prompt]).llm_output["token_usage"]["total_tokens"] for prompt in PROMPTS]
    assert together.llm_output["token_usage"]["total_tokens"] == sum(alone) > 0
    assert together.llm_output["model_name"] == "default"


@pytest.mark.parametrize("way", ["invoke", "batch", "stream"])
def test_hints(server, llm, way):
    (engine,) = server.runtime.engines
    engine.directed.clear()
    config = {"metadata": {"parrot": {"objective": "throughput"}}}
    if way == "stream":
        list(llm.stream("x", config))
    else:
        llm.batch(["x"], config) if way == "batch" else llm.invoke("x", config)
    assert [directions.rank for directions in engine.directed] == [2]
    with pytest.raises(InvalidRequest, match="objective"):
        llm.invoke("x", {"metadata": {"parrot": {"objective": "fast"}}})


def test_tokens_and_closing(llm):
    assert llm.get_num_tokens("one two three") == 3
    llm.close()
    assert llm.invoke("one fish") == llm.invoke("one fish")


def test_errors_are_those_of_the_openai_client(server):
    with pytest.raises(openai.NotFoundError, match="nobody"):
        ParrotLLM(base_url=server.url, model="nobody", max_retries=0).invoke("x")


def test_nothing_of_openai_is_read_or_sent(monkeypatch):
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "BASE_URL", "API_BASE", "PROXY", "CUSTOM_HEADERS"):
        monkeypatch.setenv(f"OPENAI_{name}", "X-Own: secret" if name == "CUSTOM_HEADERS" else "http://secret.invalid:1")
    with PlainServer() as plain:
        monkeypatch.setenv("PARROT_BASE_URL", plain.url)
        with pytest.raises(ValueError, match="text"):  # it answers as a chat model does
            ParrotLLM(max_retries=0).invoke("x")
    ((path, headers, body),) = plain.seen
    assert path == "/v1/completions"
    assert "secret" not in str((headers, body))
    assert "authorization" not in headers


# Planned.

T = PromptTemplate.from_template
C = ChatPromptTemplate.from_template


def mixed(llm):
    chat = ChatParrot(base_url=llm.openai_api_base, temperature=0, max_retries=0)
    return T("A {x}") | llm | C("B {y}") | chat | (lambda m: {"y": m.content}) | C("C {y}") | llm


def listed(llm):
    listing = T("[list] {x}") | llm | CommaSeparatedListOutputParser()
    return listing | (T("E {i}") | llm).map() | (lambda ts: "; ".join(ts)) | llm


CHAINS = {
    "four": (
        lambda llm: T("A {x}") | llm | T("B {y}") | llm | C("C {y}") | llm | T("D {y}") | llm.bind(stop=["q"]),
        4,
        1,
    ),
    "parallel": (lambda llm: {"a": T("A {x}") | llm, "b": C("B {x}") | llm} | T("J {a} {b}") | llm, 3, 1),
    "JSON": (lambda llm: T("[json a b] {x}") | llm | JsonOutputParser() | T("use {a} {b}") | llm, 2, 1),
    "a list": (listed, 5, 1),
    "code of the app": (lambda llm: T("A {x}") | llm | shout | T("B {y}") | llm | T("C {y}") | llm.with_retry(), 3, 2),
    "streaming": (lambda llm: T("A {x}") | llm.model_copy(update={"streaming": True}) | T("B {y}") | llm, 2, 1),
    "with a chat model": (mixed, 3, 1),
}


def shout(text):
    loud = text.upper()
    return {"y": loud}


@pytest.mark.parametrize("way", RUNS)
@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_is_one_program(server, llm, case, way):
    build, many, few = CHAINS[case]
    found = []
    for eager in (True, False):
        recorder, before = Recorder(), server.metrics()
        if eager:
            with disabled():
                result = run(way, build(llm), {"x": "1"}, recorder)
        else:
            result = run(way, build(llm), {"x": "1"}, recorder)
        after = server.metrics()
        trips, executed = (
            after[name] - before[name] for name in ("parrot_requests_total", "parrot_calls_executed_total")
        )
        found.append(((result, recorder.tree(), executed), trips))
    assert not found[0][0][0].startswith("raised")
    assert found[1][0] == found[0][0]
    if "batch" not in way:
        assert [trips for _, trips in found] == [many, few]
    else:
        assert found[1][1] == few


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_tokens": -1}, "tokens of its prompt"),
        ({"logprobs": 1}, "log-probabilities"),
        ({"cache": True}, "cached"),
        ({"default_query": {"a": "b"}}, None),
    ],
)
def test_what_is_not_planned_says_why(server, settings, reason):
    llm = ParrotLLM(base_url=server.url, **settings)
    explained = explain(T("A {x}") | llm, {"x": "1"})
    assert [reason in cut.reason for cut in explained.cuts] == [True] * (reason is not None)
    assert len(explained.calls) == (reason is None)
