from __future__ import annotations

import json
from typing import Any

import httpx
import langchain_openai
import openai
import pytest

ASK: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(site):
    with openai.OpenAI(base_url=site.server.url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


def test_chat_and_its_stream_say_the_same(client):
    whole = client.chat.completions.create(model="default", messages=ASK, temperature=0)
    assert whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(
            model="default", messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {c.id for c in chunks} == {chunks[0].id}


def test_usage_counts_the_cached_tokens(client):
    usage = client.chat.completions.create(model="default", messages=ASK).usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_has_usage_only_if_asked(client):
    chunks = list(client.chat.completions.create(model="default", messages=ASK, stream=True))
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_are_obeyed(client, limit):
    whole = client.chat.completions.create(model="default", messages=ASK, **{limit: 1})
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 1


def test_completions_and_their_stream_say_the_same(client):
    whole = client.completions.create(model="default", prompt="hello", temperature=0)
    assert whole.object == "text_completion"
    chunks = list(client.completions.create(model="default", prompt="hello", temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_langchains_completions_have_their_prompt_in_a_list(client, site):
    said = client.completions.create(model="default", prompt="hello", temperature=0).choices[0].text
    model = langchain_openai.OpenAI(base_url=site.server.url, api_key="any", model="default", temperature=0)
    assert model.invoke("hello") == said
    assert "".join(model.stream("hello")) == said


def test_models_lists_every_name(client):
    assert {model.id for model in client.models.list()} == {"scripted", "default"}
    assert client.models.retrieve("default").model_dump()["root"] == "scripted"


def test_errors_are_the_clients_own_classes(client, site):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as negative:
        client.chat.completions.create(model="default", messages=ASK, max_tokens=-1)
    assert negative.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(model="default", messages=ASK, tools=[])
    assert tools.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as embeddings:
        client.embeddings.create(model="default", input="x")
    assert embeddings.value.code == "unsupported"
    assert site.engine.seen == []
    assert site.counted("parrot_requests_total") == 0


def test_an_answer_may_be_sent_back_as_it_came(client, site):
    """With the nulls of what OpenAI has and the answer has not."""
    first = client.chat.completions.create(model="default", messages=ASK, temperature=0).choices[0].message
    client.chat.completions.create(model="default", messages=[*ASK, first, *ASK])
    assert site.engine.seen[-1].messages[1].content == first.content
    assert site.counted("parrot_requests_total") == 2


@pytest.mark.parametrize(
    "field",
    "audio function_call functions modalities moderation prediction prompt_cache_key prompt_cache_retention "
    "reasoning_effort safety_identifier service_tier store verbosity web_search_options".split(),
)
def test_what_openai_has_and_we_have_not_is_refused_unless_it_is_null(site, field):
    body = {"model": "default", "messages": ASK, "max_tokens": 1}
    assert site.http.post("/v1/chat/completions", json={**body, field: None}).status_code == 200
    refused = site.http.post("/v1/chat/completions", json={**body, field: True})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == field
    assert len(site.engine.seen) == 1


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/v1/models/default"]
)
def test_a_query_that_nobody_reads_is_refused(site, path):
    response = site.http.request("GET" if "models" in path else "POST", f"{path}?timeout=3")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "timeout"


async def test_the_async_client_streams(site):
    async with openai.AsyncOpenAI(base_url=site.server.url, api_key="any", max_retries=0, timeout=20) as client:
        stream = await client.chat.completions.create(model="default", messages=ASK, stream=True)
        texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert sum(map(bool, texts)) == 3


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/chat/completions", {"model": "default", "prompt": "x"}, "messages"),
        ("/v1/completions", {"model": "default", "messages": ASK}, "messages"),
        ("/v1/completions", {"model": "default"}, "prompt"),
        ("/v1/completions", {"prompt": "x"}, "model"),
        ("/v1/completions", {"model": "default", "prompt": ["x", "y"]}, "prompt"),
        ("/v1/completions", {"model": "default", "prompt": [[1, 2]]}, "prompt"),
        ("/v1/completions", {"model": "default", "prompt": ""}, "prompt"),
        ("/v1/chat/completions", {"model": "default", "messages": ASK, "stream": 1}, "stream"),
        ("/v1/chat/completions", {"model": "default", "messages": ASK, "n": 17}, "n"),
        ("/v1/chat/completions", {"model": "default", "messages": ASK, "stream_options": {}}, "stream_options"),
        ("/v1/chat/completions", {"model": 7, "messages": ASK}, "model"),
        ("/v1/chat/completions", {"model": "default", "messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
def test_a_bad_body_names_its_field(site, path, body, where):
    response = site.http.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].split("[")[0] == where.split("[")[0]
    assert site.engine.seen == []


def test_tokens_are_sent_as_they_come(gated):
    body = {"model": "default", "messages": ASK, "stream": True}
    with gated.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        role, first = json.loads(next(lines)[6:]), json.loads(next(lines)[6:])
        assert role["choices"][0]["delta"]["role"] == "assistant"
        assert first["choices"][0]["delta"]["content"]
        gated.open_gate()  # the first word was here before there was a second
        assert list(lines)[-1] == "data: [DONE]"


def test_a_quiet_stream_has_a_heartbeat_and_clients_ignore_it(gated):
    body = {"model": "default", "messages": ASK, "stream": True}
    with gated.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert ": heartbeat" in lines  # reads on until there is one
        gated.open_gate()
        assert "data: [DONE]" in lines
    with openai.OpenAI(base_url=gated.server.url, api_key="any", max_retries=0, timeout=20) as client:
        assert list(client.chat.completions.create(model="default", messages=ASK, stream=True))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_its_call(gated, stream):
    body = {"model": "default", "messages": ASK, "stream": stream}
    with httpx.Client(base_url=gated.server.base) as leaver:
        if stream:
            response = leaver.send(leaver.build_request("POST", "/v1/chat/completions", json=body), stream=True)
            response.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaver.post("/v1/chat/completions", json=body, timeout=0.3)
    assert gated.engine.left.acquire(timeout=10)
    assert gated.engine.cancelled == 1
    assert gated.server.requests() == 1


def test_an_engine_failure_before_the_first_token_is_a_503_to_try_again(gated):
    gated.engine.fail(after=0)
    for stream in (False, True):
        response = gated.http.post("/v1/completions", json={"model": "default", "prompt": "x", "stream": stream})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "engine_failed"
        assert response.headers["retry-after"] == "1"
    assert gated.server.requests() == 2


def test_an_engine_failure_in_mid_stream_is_an_error_event(gated):
    gated.engine.fail(after=1)
    body = {"model": "default", "messages": ASK, "stream": True}
    response = gated.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    *_, error, done = [line for line in response.text.splitlines() if line]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert done == "data: [DONE]"
    with (
        openai.OpenAI(base_url=gated.server.url, api_key="any", max_retries=0, timeout=20) as client,
        pytest.raises(openai.APIError, match="scripted failure"),
    ):
        list(client.chat.completions.create(model="default", messages=ASK, stream=True))


def test_line_separators_of_unicode_survive_the_stream(gated):
    # httpx, among others, splits a stream at these, so they must not stand in it as they are.
    gated.engine.say("one\u2028two\x85three\u2029four")
    gated.open_gate()
    body = {"model": "default", "messages": ASK, "stream": True}
    with gated.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
    assert text == "one\u2028two\x85three\u2029four"
