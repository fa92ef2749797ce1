"""A plain stream's chunks become messages without the OpenAI client's classes, and the same ones."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from odd_responses import USAGE, changed, changes
from openai.types.chat import ChatCompletionChunk

from semantic_parrot.adapters.langchain import ChatParrot

PLAIN = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "default",
    "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "An answer"}, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": USAGE,
    "parrot": {"engine": "native-0", "cached_tokens": 4},
}
MODEL = ChatOpenAI(api_key="none")


def made(llm, chunk):
    """What LangChain makes of it, or the kind of its error."""
    try:
        found = llm._convert_chunk_to_generation_chunk(copy.deepcopy(chunk), AIMessageChunk, {})
    except Exception as error:
        return type(error)
    return found and (found.message.model_dump(), found.generation_info)


def built(chunk):
    return ChatCompletionChunk.construct(**chunk).model_dump(warnings=False)


#: Fields that every chunk of a Parrot server has as they should be, and those that are only there if asked for.
SURE = {"choices", "delta", "tool_calls", "function_call", "logprobs", "audio"}


@given(changes(PLAIN), st.sampled_from([None, USAGE, {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}]))
def test_langchain_makes_the_same_of_it(odd, usage):
    odd = [(path, value) for path, value in odd if path[0] != "usage" and path[-1] not in SURE]
    chunk = changed({**PLAIN, "usage": usage}, odd)
    assert made(MODEL, chunk) == made(MODEL, built(chunk))


async def streams(llm, **asked):
    yield list(llm.stream("The harbour master wrote", **asked))
    yield [chunk async for chunk in llm.astream("The harbour master wrote", **asked)]


@pytest.fixture
def told(monkeypatch):
    """The chunks as LangChain got them from the client."""
    found = []
    convert = ChatOpenAI._convert_chunk_to_generation_chunk

    def spy(self, chunk, *args):
        found.append(copy.deepcopy(chunk))
        return convert(self, chunk, *args)

    monkeypatch.setattr(ChatOpenAI, "_convert_chunk_to_generation_chunk", spy)
    return found


async def test_chunks_of_a_text_come_as_dicts(server, told):
    llm = ChatParrot(base_url=server.url, temperature=0, max_tokens=4, seed=3, stop=["zzz"])
    async for chunks in streams(llm):
        raw = list(told)
        assert len(raw) > 2
        assert all("function_call" not in choice["delta"] for chunk in raw for choice in chunk["choices"])
        assert [made(MODEL, chunk) for chunk in raw] == [made(MODEL, built(chunk)) for chunk in raw]
        assert "".join(chunk.content for chunk in chunks)
        told.clear()


TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    "asked", [{"logprobs": True}, TOOLS, {"extra_body": {"logprobs": True}}, {"extra_body": TOOLS}]
)
async def test_what_is_more_than_a_text_goes_through_the_classes(server, told, asked):
    llm = ChatParrot(base_url=server.url, temperature=0, max_tokens=4)
    async for _ in streams(llm, **asked):
        assert all("system_fingerprint" in chunk for chunk in told)
        assert all("function_call" in choice["delta"] for chunk in told for choice in chunk["choices"])
        told.clear()


def test_a_copy_has_the_same_resources(server):
    llm = ChatParrot(base_url=server.url)
    assert llm.model_copy().async_client is llm.async_client
    assert copy.copy(llm).client is llm.client


def test_resources_that_the_app_hands_in_are_left_alone(server):
    own = ChatOpenAI(base_url=server.url, api_key="none")
    llm = ChatParrot(base_url=server.url, client=own.client, async_client=own.async_client)
    assert (llm.client, llm.async_client) == (own.client, own.async_client)
