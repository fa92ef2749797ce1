"""Structured output and tools of LangChain on a real engine: eager and lowered, whole and streamed, the same result.

The model has random weights: what holds its answers together is the grammar that the request asks for.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from semantic_parrot.adapters.langchain import ChatParrot, disabled, explain

pytestmark = [
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch"),
    # Of langchain-openai, eager as well: its responses have a field for the parsed object that is typed None.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


class Place(BaseModel):
    """A place."""

    city: str = Field(max_length=12)
    days: int = Field(ge=1, le=9)


@tool
def weather(city: str, days: int) -> str:
    """The weather of a city."""
    return f"{days} days of rain in {city}"


@pytest.fixture
def server(tool_server):
    return tool_server


@pytest.fixture
def llm(server):
    return ChatParrot(base_url=server.url, temperature=0, seed=3, max_tokens=200, max_retries=0)


PROMPT = ChatPromptTemplate.from_messages([("human", "Where is {who}?")])


def both(server, work):
    """`work()` eager, then planned; with the round trips of each."""
    seen = []
    for eager in (True, False):
        before = server.requests()
        if eager:
            with disabled():
                result = work()
        else:
            result = work()
        seen.append((result, server.requests() - before))
    return seen


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_with_structured_output(server, llm, method):
    chain = PROMPT | llm.with_structured_output(Place, method=method)
    assert len(explain(chain, {"who": "Ann"}).calls) == 1
    (eager, _), (lowered, _) = both(server, lambda: chain.invoke({"who": "Ann"}))
    assert isinstance(eager, Place)
    assert lowered == eager
    before = server.metrics()["parrot_calls_executed_total"]
    chain.invoke({"who": "Ann"})
    assert server.metrics()["parrot_calls_executed_total"] == before + 1  # what was planned was claimed
    (eager_last, _), (lowered_last, _) = both(server, lambda: list(chain.stream({"who": "Ann"}))[-1])
    assert eager_last == lowered_last == eager
    (eager_batch, trips), (lowered_batch, planned) = both(server, lambda: chain.batch([{"who": w} for w in "AB"]))
    assert lowered_batch == eager_batch
    assert (trips, planned) == (2, 1)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_with_structured_output_async(server, llm, method):
    chain = PROMPT | llm.with_structured_output(Place, method=method, include_raw=True)
    with disabled():
        eager = await chain.ainvoke({"who": "Bob"})
    lowered = await chain.ainvoke({"who": "Bob"})
    assert lowered["parsed"] == eager["parsed"]
    assert lowered["parsing_error"] is None
    assert lowered["raw"].content == eager["raw"].content


def calls(message: AIMessage):
    """Ids are drawn anew by each execution."""
    return [(call["name"], call["args"]) for call in message.tool_calls]


def test_bind_tools(server, llm):
    chain = PROMPT | llm.bind_tools([weather], tool_choice="weather")
    (eager, _), (lowered, _) = both(server, lambda: chain.invoke({"who": "Ann"}))
    assert calls(eager) == calls(lowered)
    ((name, arguments),) = calls(eager)
    assert name == "weather"
    assert weather.invoke(arguments).startswith(str(arguments["days"]))
    assert eager.response_metadata["finish_reason"] == lowered.response_metadata["finish_reason"] == "tool_calls"

    def streamed():
        whole: AIMessageChunk | None = None
        for chunk in chain.stream({"who": "Ann"}):
            whole = chunk if whole is None else whole + chunk
        return whole

    (eager_stream, _), (lowered_stream, _) = both(server, streamed)
    assert calls(eager_stream) == calls(lowered_stream) == calls(eager)


def test_a_conversation_with_a_tool(server, llm):
    asking = llm.bind_tools([weather], tool_choice="any")
    first = asking.invoke("What is the weather?")
    replies = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in first.tool_calls]
    assert replies
    history = [HumanMessage("What is the weather?"), first, *replies]
    chain = llm.bind(max_tokens=6)
    (eager, _), (lowered, _) = both(server, lambda: chain.invoke(history))
    assert eager.content == lowered.content != ""


def test_a_planned_call_with_a_format_is_executed_once(server, llm):
    """A chain whose second prompt needs the first answer goes to the server in one round trip."""
    chain = (
        PROMPT
        | llm.bind(response_format={"type": "json_object"})
        | (lambda message: {"who": message.content})
        | PROMPT
        | llm.bind(max_tokens=4)
    )
    before = server.metrics()["parrot_calls_executed_total"]
    (eager, trips), (lowered, planned) = both(server, lambda: chain.invoke({"who": "Ann"}))
    assert eager.content == lowered.content
    assert (trips, planned) == (2, 1)
    assert server.metrics()["parrot_calls_executed_total"] - before == 4
