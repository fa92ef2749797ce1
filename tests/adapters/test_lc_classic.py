"""langchain_classic's document chains: one program, sync and async, the same results and run trees."""

from __future__ import annotations

import asyncio
import warnings

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from lc_recorder import Recorder, seen

from semantic_parrot.adapters.langchain import ChatParrot, disabled

chains = pytest.importorskip("langchain_classic.chains")
stuffing = pytest.importorskip("langchain_classic.chains.combine_documents.stuff")

# All of it is deprecated; and Chain.run calls what is.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")

DOCUMENTS = [Document(page_content=f"page {i}", metadata={"source": f"s{i}"}) for i in range(5)]
SHOWN = PromptTemplate.from_template("<{source}> {page_content}")


def caller(llm, text, **settings):
    return chains.LLMChain(llm=llm, prompt=PromptTemplate.from_template(text), **settings)


def refine(llm, shown=SHOWN, **settings):
    return chains.RefineDocumentsChain(
        initial_llm_chain=chains.LLMChain(llm=llm, prompt=ChatPromptTemplate.from_template("First: {context}")),
        refine_llm_chain=caller(llm, "So far: {earlier}. Now {context} in {tone}"),
        document_prompt=shown,
        document_variable_name="context",
        initial_response_name="earlier",
        **settings,
    )


def map_reduce(llm, token_max=3000, **settings):
    stuff = chains.StuffDocumentsChain(
        llm_chain=caller(llm, "Merge {tone}: {summaries}"),
        document_prompt=SHOWN,
        document_variable_name="summaries",
        document_separator="; ",
    )
    return chains.MapReduceDocumentsChain(
        llm_chain=caller(llm, "Summarize {tone}: {page}", **settings),
        document_variable_name="page",
        reduce_documents_chain=chains.ReduceDocumentsChain(
            combine_documents_chain=stuff, token_max=token_max, collapse_max_retries=4
        ),
        return_intermediate_steps=True,
    )


def stuff_after_map(llm):
    made = map_reduce(llm)
    made.reduce_documents_chain = made.reduce_documents_chain.combine_documents_chain
    return made


GIVEN = {"input_documents": DOCUMENTS, "tone": "calm"}
TWO = [GIVEN, {**GIVEN, "tone": "loud"}]


async def _astream(chain, config):
    return [chunk async for chunk in chain.astream(GIVEN, config)]


async def _events(chain, config):
    """Without those of pieces, which come where they come."""
    events = [event async for event in chain.astream_events(GIVEN, config, version="v2")]
    found = [(event["event"], event["name"], event["data"].get("output")) for event in events]
    return sorted((event for event in found if not event[0].endswith("_stream")), key=seen)


WAYS = {
    "invoke": lambda chain, config: chain.invoke(GIVEN, config),
    "ainvoke": lambda chain, config: asyncio.run(chain.ainvoke(GIVEN, config)),
    "batch": lambda chain, config: chain.batch(TWO, config),
    "abatch": lambda chain, config: asyncio.run(chain.abatch(TWO, config)),
    "stream": lambda chain, config: list(chain.stream(GIVEN, config)),
    "astream": lambda chain, config: asyncio.run(_astream(chain, config)),
    "astream-events": lambda chain, config: asyncio.run(_events(chain, config)),
}


def observe(server, build, way):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain, recorder, before = build(llm), Recorder(), server.metrics()
        result = seen(WAYS[way](chain, {"callbacks": [recorder]}))
    after = server.metrics()
    trips, executed = (after[name] - before[name] for name in ("parrot_requests_total", "parrot_calls_executed_total"))
    return (result, recorder.tree(), executed), trips


def both(server, build, way="invoke"):
    with disabled():
        eager, many = observe(server, build, way)
    lowered, few = observe(server, build, way)
    assert lowered == eager
    return many, few


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("build", "trips"), [(refine, (5, 1)), (map_reduce, (6, 1)), (stuff_after_map, (6, 1))])
def test_a_document_chain_is_one_program(server, build, trips, way):
    runs = 2 if "batch" in way else 1
    assert both(server, build, way) == tuple(runs * trip for trip in trips)


def test_the_settings_of_an_llm_chain(server):
    assert both(server, lambda llm: map_reduce(llm, llm_kwargs={"max_tokens": 2})) == (6, 1)
    assert both(server, lambda llm: refine(llm.bind(max_tokens=2))) == (5, 1)


def test_apply_is_one_program(server):
    class Apply:
        def __init__(self, llm):
            self._chain = caller(llm, "Say {x}")

        def invoke(self, _, config):
            return self._chain.apply([{"x": str(i)} for i in range(4)], callbacks=config["callbacks"])

    assert both(server, Apply) == (4, 1)


def test_answers_too_long_for_one_prompt_are_collapsed_as_ever(server):
    many, few = both_results(server, lambda llm: map_reduce(llm, token_max=16))
    assert few < many


def both_results(server, build):
    """Of a chain whose plan is partly wrong: what was executed for nothing does not matter."""
    with disabled():
        eager, many = observe(server, build, "invoke")
    lowered, few = observe(server, build, "invoke")
    assert lowered[:2] == eager[:2]
    return many, few


@pytest.mark.parametrize(
    "build",
    [
        lambda llm: refine(llm, shown=ChatPromptTemplate.from_template("{page_content}")),
        lambda llm: refine(llm, shown=PromptTemplate.from_template("{{ page_content }}", template_format="jinja2")),
    ],
)
def test_what_is_not_lowered_goes_out_as_it_always_did(server, build):
    assert both(server, build) == (5, 5)


def test_a_missing_variable_is_the_eager_error(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    chain = refine(llm)
    with pytest.raises(ValueError, match="tone"):
        chain.invoke({"input_documents": DOCUMENTS})
