"""POST /v1/responses with OpenAI's own client: shapes over a scripted engine, tools and formats over a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import openai
import pytest
from openai.types.responses import Response

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "name": "weather", "description": "Of a city.", "parameters": SCHEMA, "strict": True},
    {"type": "function", "name": "now", "parameters": None, "strict": None},
]
NAMED = {"type": "function", "name": "weather"}


@pytest.fixture
def client(site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=site.server.url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def real(tool_server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=tool_server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_it_says_what_a_chat_completion_says(client, site):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    chat = client.chat.completions.create(model="default", messages=asked, temperature=0)
    site.mark()
    response = client.responses.create(
        model="default", instructions="Be brief.", input="hello", temperature=0, metadata={"a": "b"}
    )
    assert response.output_text == chat.choices[0].message.content
    assert (response.object, response.status, response.model) == ("response", "completed", "default")
    assert (response.temperature, response.instructions, response.metadata) == (0, "Be brief.", {"a": "b"})
    assert response.model_dump()["store"] is False
    assert response.usage is not None
    assert response.usage.total_tokens == chat.usage.total_tokens
    assert site.counted('parrot_requests_total{route="/v1/responses"}') == 1
    # Every type that the client declares: it checks none of them by itself.
    Response.model_validate_json(response.model_dump_json(), strict=True)


def test_an_answer_may_be_sent_back(client, site):
    first = client.responses.create(model="default", input=[{"role": "user", "content": "one"}], temperature=0)
    history = [{"role": "user", "content": "one"}, *first.output, {"role": "user", "content": "two"}]
    client.responses.create(model="default", input=history, temperature=0)
    parts = [{"type": "input_text", "text": "t"}, {"type": "input_text", "text": "wo"}]
    client.responses.create(model="default", input=[*history[:2], {"role": "user", "content": parts}], temperature=0)
    said = [(m.role, m.content) for m in site.engine.seen[1].messages]
    assert said == [("user", "one"), ("assistant", first.output_text), ("user", "two")]
    assert site.engine.seen[2].messages == site.engine.seen[1].messages


def test_the_events_of_a_stream(client):
    events = list(client.responses.create(model="default", input="hello", temperature=0, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 3,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = client.responses.create(model="default", input="hello", temperature=0)
    final = events[-1].response
    assert final.output_text == whole.output_text == "".join(e.delta for e in events if e.type.endswith("text.delta"))
    assert final.usage == whole.usage
    assert events[0].response.output == []
    assert events[0].response.id == final.id
    assert events[2].item.id == final.output[0].id


def test_the_clients_own_accumulator_agrees(client):
    with client.responses.stream(model="default", input="hello", temperature=0) as stream:
        texts = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == texts[-1]


def test_an_answer_that_is_cut_off_is_incomplete(client):
    whole = client.responses.create(model="default", input="hello", max_output_tokens=1)
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.output[0].status == "incomplete"
    *_, last = client.responses.create(model="default", input="hello", max_output_tokens=1, stream=True)
    assert last.type == "response.incomplete"


MESSAGE = {"type": "message", "role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_object", "name": "x"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOLS[0]]}, "tools[0].strict"),
        ({"tools": [TOOLS[1]], "tool_choice": NAMED}, "tool_choice.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1, "min_tokens": 2}, "min_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [{**MESSAGE, "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].type"),
        ({"input": [{**MESSAGE, "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0].type"),
        ({"input": [{**MESSAGE, "role": "assistant", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [MESSAGE, {"type": "item_reference", "id": "x"}]}, "input[1].type"),
        ({"input": [MESSAGE, {"type": "function_call", "call_id": "x", "name": "f"}]}, "input[1].arguments"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_what_is_not_served_is_refused_by_name(site, fields, param):
    response = site.http.post("/v1/responses", json={"model": "default", "input": "hi", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert site.engine.seen == []
    assert site.counted("parrot_requests_total") == 0


def test_what_says_nothing_is_no_mistake(client):
    """Clients send nulls, and what is the case anyway."""
    nothing = {"previous_response_id": None, "store": False, "truncation": "disabled", "include": [], "tools": []}
    assert client.responses.create(model="default", input="hi", **nothing).status == "completed"


@pytest.mark.parametrize("after", [0, 1])
def test_an_engine_failure(gated, after):
    """Before the first token it is a status, later an event with what there is."""
    gated.engine.fail(after=after)
    body = {"model": "default", "input": "hi", "stream": True}
    response = gated.http.post("/v1/responses", json=body)
    if after == 0:
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "engine_failed"
        return
    last = json.loads(response.text.rstrip().rpartition("\ndata: ")[2])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "engine_failed"
    assert last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_function_calls_whole_and_streamed(real, choice):
    for seed in range(2):
        options = {
            "model": "default", "input": "What is the weather?", "tools": TOOLS, "tool_choice": choice,
            "max_output_tokens": 250, "extra_body": {"seed": seed},
        }  # fmt: skip
        whole = real.responses.create(**options)
        calls = [item for item in whole.output if item.type == "function_call"]
        assert calls == whole.output
        assert whole.status == "completed"
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMA if call.name == "weather" else {})
        events = list(real.responses.create(**options, stream=True))
        final = events[-1].response.output
        assert [(c.name, c.arguments) for c in final] == [(c.name, c.arguments) for c in calls]
        for index, call in enumerate(final):
            deltas = [e.delta for e in events if e.type.endswith("arguments.delta") and e.output_index == index]
            assert "".join(deltas) == call.arguments
        done = [e.item.call_id for e in events if e.type == "response.output_item.done"]
        assert done == [call.call_id for call in final]

    # The next turn: what the functions gave, beside the calls as they came.
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "It rains."} for call in calls]
    history = [{"role": "user", "content": "What is the weather?"}, *whole.output, *outputs]
    after = real.responses.create(**options | {"input": history, "tool_choice": "none", "max_output_tokens": 5})
    assert after.output[0].type == "message"
    assert after.usage.input_tokens > 5


def test_formats_and_logprobs(real):
    text = {"format": {"type": "json_schema", "name": "it", "schema": SCHEMA}}
    options = {"model": "default", "input": "Invent", "max_output_tokens": 120, "extra_body": {"seed": 3}}
    include = ["message.output_text.logprobs"]
    whole = real.responses.create(**options, text=text, include=include, top_logprobs=2)
    jsonschema.validate(json.loads(whole.output_text), SCHEMA)
    assert whole.text.format.name == "it"
    told = whole.output[0].content[0].logprobs
    assert b"".join(bytes(token.bytes) for token in told).decode() == whole.output_text
    assert {len(token.top_logprobs) for token in told} == {2}
    events = real.responses.create(**options, text=text, include=include, top_logprobs=2, stream=True)
    streamed = [token.logprob for e in events if e.type == "response.output_text.delta" for token in e.logprobs]
    assert streamed == [token.logprob for token in told]
