"""Choices and log-probabilities over HTTP, from a real model: streams and programs say what whole answers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from live import LiveServer

ASK: Any = [{"role": "user", "content": "Which ship left the quay at four, and what was in its hold?"}]
HOW: Any = {"model": "default", "temperature": 1, "seed": 11, "max_tokens": 12, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    from tiny_models import make_model

    model = make_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")
    with LiveServer("--model", str(model), "--deterministic") as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.base, timeout=60) as http:
        yield http


def texts(stream) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            text = choice.text if hasattr(choice, "text") else choice.delta.content
            found[choice.index] = found.get(choice.index, "") + (text or "")
    return found


def test_choices_are_answers_of_their_own(client, server):
    one = client.chat.completions.create(messages=ASK, **HOW)
    before = server.metrics()
    whole = client.chat.completions.create(messages=ASK, n=3, **HOW)
    after = server.metrics()
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    said = [choice.message.content for choice in whole.choices]
    assert said[0] == one.choices[0].message.content
    assert len(set(said)) == 3
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens
    assert whole.usage.completion_tokens == 36
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 36
    computed = "parrot_prompt_tokens_computed_total"
    assert after[computed] - before[computed] == 3  # of a prompt that is resident, the last token
    stream = client.chat.completions.create(messages=ASK, n=3, stream=True, **HOW)
    assert texts(stream) == dict(enumerate(said))


def test_the_prompt_of_all_choices_is_filled_once(client, server):
    fresh = [{"role": "user", "content": "A fresh prompt " * 20}]
    before = server.metrics()
    usage = client.chat.completions.create(messages=fresh, n=4, **HOW).usage
    after = server.metrics()
    computed = "parrot_prompt_tokens_computed_total"
    assert after[computed] - before[computed] == usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens + 3
    assert usage.prompt_tokens_details.cached_tokens < 40


def test_every_choice_of_a_stream_begins_and_ends(client):
    stream = client.chat.completions.create(
        messages=ASK, n=2, stream=True, stream_options={"include_usage": True}, **HOW
    )
    *chunks, last = list(stream)
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert [choice.finish_reason for choice in mine] == [None] * (len(mine) - 1) + ["length"]
    assert last.usage.completion_tokens == 24


def test_greedy_choices_are_equal(client):
    how = {**HOW, "temperature": 0, "logprobs": True}
    whole = client.chat.completions.create(messages=ASK, n=2, **how)
    first, second = whole.choices
    assert first.message == second.message
    assert first.logprobs == second.logprobs is not None
    assert whole.usage.completion_tokens == 24


def test_logprobs_of_chat(client):
    how = {**HOW, "logprobs": True, "top_logprobs": 2, "n": 2}
    whole = client.chat.completions.create(messages=ASK, **how)
    streamed: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in client.chat.completions.create(messages=ASK, stream=True, **how):
        for choice in chunk.choices:
            if choice.logprobs is not None:
                streamed[choice.index] += choice.logprobs.content
    for choice in whole.choices:
        content = choice.logprobs.content
        assert streamed[choice.index] == content
        assert len(content) == 12
        raw = b"".join(bytes(token.bytes) for token in content if not token.token.startswith("<|"))
        assert raw.decode("utf-8", "replace") == choice.message.content
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in content)
    plain = client.chat.completions.create(messages=ASK, **HOW)
    assert plain.choices[0].logprobs is None
    assert plain.choices[0].message == whole.choices[0].message


@pytest.mark.parametrize("count", [0, 3])
def test_logprobs_of_completions(client, count):
    how = {**HOW, "prompt": "The quay", "logprobs": count}
    whole = client.completions.create(**how).choices[0]
    told = whole.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 12
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top[token] >= logprob  # parts of characters may look the same
        assert len(top) <= count + 1
        assert list(top.values()) == sorted(top.values(), reverse=True)
    streamed = [chunk.choices[0] for chunk in client.completions.create(stream=True, **how)]
    assert "".join(choice.text for choice in streamed) == whole.text
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        parts = [getattr(choice.logprobs, name) for choice in streamed if choice.logprobs is not None]
        assert [one for part in parts for one in part] == getattr(told, name)


def program(**fields: Any) -> dict[str, Any]:
    how = {key: value for key, value in HOW.items() if key != "extra_body"}
    reader = {"$t": ["Read: ", {"var": "first"}]}
    calls = [
        {"id": "a", "output": "first", "request": {**how, "ignore_eos": True, "messages": ASK, **fields}},
        {"id": "b", "output": "last", "request": {**how, "messages": [{"role": "user", "content": reader}]}},
    ]
    return {"calls": calls, "outputs": ["first", "last"]}


def test_a_variable_is_the_first_choice(client, http):
    how = {**HOW, "n": 3, "logprobs": True, "top_logprobs": 1}
    eager = client.chat.completions.create(messages=ASK, **how)
    body = {**program(n=3, logprobs=True, top_logprobs=1), "stream": True, "deltas": "all"}
    with http.stream("POST", "/v1/runs", json=body) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    (finished,) = [e for e in events if e["type"] == "call.finished" and e["id"] == "a"]
    expected = json.loads(eager.model_dump_json())["choices"]
    found = openai.types.chat.ChatCompletion.model_validate(finished["response"]).model_dump(mode="json")["choices"]
    assert found == expected
    assert events[-1]["outputs"]["first"] == expected[0]["message"]["content"]
    deltas = [e for e in events if e["type"] == "variable.delta" and e["id"] == "a"]
    assert "".join(e["text"] for e in deltas) == expected[0]["message"]["content"]
    told = [token for e in deltas if e["logprobs"] for token in e["logprobs"]["content"]]
    assert told == expected[0]["logprobs"]["content"]
    assert all(e["logprobs"] is None for e in events if e["type"] == "variable.delta" and e["id"] == "b")
    assert events[-1]["status"] == "finished"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("chat/completions", {"top_logprobs": 1}, "top_logprobs"),
        ("chat/completions", {"logprobs": False, "top_logprobs": 0}, "top_logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("chat/completions", {"logprobs": 1}, "logprobs"),
        ("completions", {"logprobs": True}, "logprobs"),
        ("completions", {"logprobs": 6}, "logprobs"),
        ("completions", {"top_logprobs": 1}, "top_logprobs"),
        ("completions", {"n": 0}, "n"),
        ("chat/completions", {"n": 17}, "n"),
        ("completions", {"best_of": 2}, "best_of"),
        ("completions", {"echo": True}, "echo"),
        ("chat/completions", {"logit_bias": {"400": 1}}, "logit_bias"),
        ("completions", {"stop_token_ids": [400]}, "stop_token_ids"),
        ("completions", {"min_tokens": 10, "max_tokens": 9}, "min_tokens"),
    ],
)
def test_what_is_refused_is_a_400_with_its_name(http, route, fields, param, stream):
    asked = {"messages": ASK} if route.startswith("chat") else {"prompt": "x"}
    response = http.post(f"/v1/{route}", json={"model": "default", "stream": stream, **asked, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
