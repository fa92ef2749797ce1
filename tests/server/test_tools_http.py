"""Tools over HTTP, with OpenAI's own client and a model whose calls a grammar forces."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import jsonschema
import openai
import pytest
from live import LiveServer

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
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ASK = [{"role": "user", "content": "What is the weather?"}]
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture
def client(tool_server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=tool_server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def options(choice, seed=1):
    return {"model": "default", "messages": ASK, "tools": TOOLS, "tool_choice": choice, "seed": seed, "max_tokens": 250}


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_whole_and_streamed(client, choice):
    for seed in range(3):
        whole = client.chat.completions.create(**options(choice, seed)).choices[0]
        assert whole.finish_reason == "tool_calls"
        assert whole.message.content is None
        assert whole.message.tool_calls
        for call in whole.message.tool_calls:
            assert call.type == "function"
            jsonschema.validate(json.loads(call.function.arguments), SCHEMA if call.function.name == "weather" else {})

        seen: list[dict[str, str]] = []
        reasons = []
        for chunk in client.chat.completions.create(**options(choice, seed), stream=True):
            (part,) = chunk.choices
            reasons.append(part.finish_reason)
            assert not part.delta.content
            for delta in part.delta.tool_calls or ():
                if delta.id is not None:
                    assert delta.index == len(seen)
                    assert delta.type == "function"
                    seen.append({"id": delta.id, "name": delta.function.name, "arguments": "", "pieces": 0})
                seen[delta.index]["arguments"] += delta.function.arguments
                seen[delta.index]["pieces"] += 1
        assert reasons[-1] == "tool_calls"
        assert set(reasons[:-1]) == {None}
        assert len({call["id"] for call in seen}) == len(seen)
        expected = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls]
        assert [(call["name"], call["arguments"]) for call in seen] == expected
        assert seen[0]["name"] != "weather" or seen[0]["pieces"] > 3  # as they come


def test_free_text_is_content(client):
    free = client.chat.completions.create(**options("auto") | {"max_tokens": 20}).choices[0]
    assert free.message.tool_calls is None
    assert free.message.content
    assert free.finish_reason in ("length", "stop")


def test_a_conversation_goes_on(client):
    first = client.chat.completions.create(**options(NAMED)).choices[0].message
    messages = [*ASK, first]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "It rains."} for call in first.tool_calls]
    second = client.chat.completions.create(**options("none") | {"messages": messages, "max_tokens": 5})
    assert second.choices[0].message.content
    assert second.usage.prompt_tokens > len(ASK)


def test_in_a_program_the_variable_is_the_content(tool_server):
    call = {"id": "c", "output": "said", "request": options("required")}
    after = {
        "model": "default",
        "max_tokens": 3,
        "messages": [{"role": "user", "content": {"$t": ["After:", {"var": "said"}]}}],
    }
    program = {"calls": [call, {"id": "d", "output": "end", "request": after}], "deltas": "all", "outputs": ["said"]}
    run = httpx.post(f"{tool_server.url}/runs", json=program, timeout=60).json()
    assert run["outputs"] == {"said": ""}
    assert run["status"] == "finished"
    message = run["calls"]["c"]["response"]["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] in ("weather", "now")
    assert run["calls"]["d"]["response"]["usage"]["completion_tokens"] > 0


def test_a_model_without_tools_says_so(tmp_path):
    from tiny_models import make_model

    with LiveServer("--model", str(make_model("llama", tmp_path / "plain"))) as plain:
        response = httpx.post(f"{plain.url}/chat/completions", json=options("auto"), timeout=60)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "tools"
        body = options("none") | {"max_tokens": 3}
        assert httpx.post(f"{plain.url}/chat/completions", json=body, timeout=60).status_code == 200
