"""What an answer tells of itself, and what the model asks the server beside answers."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import warnings
import weakref

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from lc_shapes import P, step
from plain_server import PlainServer, chat_completion

from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.adapters.replay import to_json

MADE = {"engine", "cached_tokens", "queued", "prefill", "decode"}


@pytest.fixture
def llm(server):
    return ChatParrot(base_url=server.url, temperature=0, max_retries=0)


def whole(chunks):
    message = None
    for chunk in chunks:
        message = chunk if message is None else message + chunk
    return message


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_answer_says_where_and_how_it_was_made(llm, way, planned):
    chain = step("A {x}", llm) | P("B {y}") | llm if planned else llm
    given = {"x": "1"} if planned else "B one"
    message = chain.invoke(given) if way == "invoke" else whole(chain.stream(given))
    told = message.response_metadata
    assert (told["model_name"], told["finish_reason"]) == ("default", "stop")
    assert told["parrot"].keys() == MADE
    assert told["parrot"]["engine"] == "scripted-0"
    assert message.usage_metadata["output_tokens"] == 3
    assert message.usage_metadata["input_token_details"] == {"cache_read": told["parrot"]["cached_tokens"]}


async def test_the_times_are_those_of_the_answer(tool_server):
    llm = ChatParrot(base_url=tool_server.url, temperature=0, max_tokens=8, max_retries=0)
    await llm.ainvoke("The harbour master wrote down each ship")
    for message in (await llm.ainvoke("The harbour master wrote"), whole(llm.stream("The harbour master wrote"))):
        made = message.response_metadata["parrot"]
        assert made["prefill"] > 0 < made["decode"]
        assert made["cached_tokens"] == message.usage_metadata["input_token_details"]["cache_read"] > 0


def with_reasoning(body):
    thought = {"role": "assistant", "reasoning_content": "Two and two", "content": "Four"}
    if not body.get("stream"):
        return to_json(chat_completion(message=thought))
    deltas = ({"role": "assistant", "content": ""}, {"reasoning_content": "Two "}, {"reasoning_content": "and two"})
    chunks = [chat_completion(delta=delta) for delta in (*deltas, {"content": "Four"})]
    return b"".join(b"data: " + to_json(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_reasoning_is_kept(way):
    with PlainServer(with_reasoning) as plain:
        llm = ChatParrot(base_url=plain.url, max_retries=0)
        for message in (
            llm.invoke("2 + 2?") if way == "invoke" else whole(llm.stream("2 + 2?")),
            await llm.ainvoke("2 + 2?") if way == "invoke" else whole([c async for c in llm.astream("2 + 2?")]),
        ):
            assert message.content == "Four"
            assert message.additional_kwargs["reasoning_content"] == "Two and two"


# Tokens, as the server counts them.


def test_tokens_are_the_servers(tool_server):
    llm = ChatParrot(base_url=tool_server.url, max_retries=0)
    answer = llm.bind(max_tokens=1).invoke([SystemMessage("Be brief."), HumanMessage("Hello there")])
    messages = [SystemMessage("Be brief."), HumanMessage("Hello there")]
    assert llm.get_num_tokens_from_messages(messages) == answer.usage_metadata["input_tokens"]
    tokens = llm.get_token_ids("Hello there")
    assert llm.get_num_tokens("Hello there") == len(tokens)
    assert llm.get_token_ids("Hello") == tokens[: len(llm.get_token_ids("Hello"))]
    assert ChatParrot(base_url=tool_server.url, custom_get_token_ids=lambda _: [7]).get_token_ids("Hello") == [7]
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        ChatParrot(base_url=tool_server.url, model="no-such-model", max_retries=0).get_token_ids("Hello")


def test_a_server_without_a_tokenizer_leaves_it_to_the_class_above(monkeypatch):
    from langchain_openai import ChatOpenAI

    monkeypatch.setattr(ChatOpenAI, "get_token_ids", lambda self, text: [1, 2])
    with PlainServer() as plain:
        assert ChatParrot(base_url=plain.url, max_retries=0).get_token_ids("x") == [1, 2]
        assert [path for path, _, _ in plain.seen] == ["/tokenize"]


# Who speaks, and who is done.


def test_a_name_reaches_the_server(llm, server):
    assert re.fullmatch(r"w\w+ w\w+ w\w+", llm.invoke([HumanMessage("Hi", name="ann")]).content)
    (said,) = server.runtime.engines[0].seen[-1].messages
    assert (said.content, said.name) == ("Hi", "ann")


async def test_a_model_that_was_closed_connects_again(llm):
    first = llm.invoke("x").content
    llm.close()
    assert llm.invoke("x").content == first
    assert (await llm.ainvoke("x")).content == first
    transport = llm.http_async_client.release.__self__
    assert len(transport._inner) == 1
    await llm.aclose()
    assert len(transport._inner) == 0
    assert (await llm.ainvoke("x")).content == first
    await llm.aclose()


async def test_a_model_that_is_garbage_closes_its_connections_while_its_loop_runs(server):
    llm = ChatParrot(base_url=server.url, temperature=0)
    with disabled():
        await llm.ainvoke("x")
    transport = llm.http_async_client.release.__self__
    (connections,) = transport._inner.values()
    pool = connections.transport._pool
    assert len(pool.connections) == 1
    cycle = [llm]
    cycle.append(cycle)
    gone = weakref.ref(transport)
    del llm, cycle, transport
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a socket that is finalized before it is closed says so
        async with asyncio.timeout(30):
            while gone() is not None or pool.connections:
                gc.collect()  # it does nothing while another thread, such as the server's, is collecting
                await asyncio.sleep(0)
                await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def test_a_model_outlives_event_loops_and_keeps_nothing_of_them(server):
    llm = ChatParrot(base_url=server.url, temperature=0)
    with disabled():
        texts = {asyncio.run(llm.ainvoke("x")).content for _ in range(5)}
    transport = llm.http_async_client.release.__self__
    assert len(texts) == 1
    assert len(transport._inner) == 1


def test_the_usage_of_a_stream_can_be_left_out(server):
    llm = ChatParrot(base_url=server.url, temperature=0, stream_usage=False)
    with disabled():
        assert whole(llm.stream("x")).usage_metadata is None
    assert json.loads(json.dumps(whole(llm.stream("x")).response_metadata))["parrot"].keys() == MADE
