"""What a remote engine is sent: every option under the name that its server has for it, or refused by name."""

import contextlib

import pytest

from semantic_parrot.core.engines.dialects import DIALECTS
from semantic_parrot.core.engines.outgoing import directed, outgoing
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.errors import Unsupported
from semantic_parrot.core.request import parse_request

CHAT = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "hear", "parameters": SCHEMA}}

#: The request fields that the servers publish, as far as we may send them.
OPENAI = """model messages prompt stream stream_options temperature top_p seed stop presence_penalty frequency_penalty
logit_bias n max_completion_tokens max_tokens logprobs top_logprobs response_format tools tool_choice
parallel_tool_calls""".split()
BEYOND = "top_k min_p repetition_penalty ignore_eos min_tokens stop_token_ids priority cache_salt".split()
KNOWN = {
    "openai": OPENAI,
    "parrot": [*OPENAI, *BEYOND[:-2], "structured_outputs"],
    "vllm": [*OPENAI, *BEYOND, "structured_outputs"],
    "sglang": [*OPENAI, *BEYOND, "regex", "ebnf"],
    "llama.cpp": [*OPENAI, "top_k", "min_p", "repeat_penalty", "repeat_last_n", "ignore_eos"],
    "transformers": """model messages prompt stream temperature top_p seed stop frequency_penalty logit_bias max_tokens
        tools""".split(),
    "ollama": [name for name in OPENAI if name not in ("logit_bias", "n", "tool_choice", "parallel_tool_calls")],
}
OPTIONS = [
    {},
    {"temperature": 0.5, "seed": 7},
    {"top_p": 0.5},
    {"top_k": 4},
    {"min_p": 0.1},
    {"repetition_penalty": 1.2},
    {"presence_penalty": 1},
    {"frequency_penalty": 1},
    {"logit_bias": {"17": 2}},
    {"stop": ["a", "b"]},
    {"stop_token_ids": [3]},
    {"ignore_eos": True},
    {"min_tokens": 2, "max_tokens": 4},
    {"max_tokens": 4},
    {"n": 2},
    {"logprobs": True, "top_logprobs": 2},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"structured_outputs": {"regex": "a+"}},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"tools": [TOOL]},
    {"tools": [TOOL, OTHER], "tool_choice": "required"},
    {"tools": [TOOL, OTHER], "tool_choice": {"type": "function", "function": {"name": "hear"}}},
    {"tools": [TOOL], "parallel_tool_calls": False},
]


@contextlib.contextmanager
def refusals():
    found = []
    try:
        yield found
    except Unsupported as error:
        found.append(error)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", sorted(DIALECTS))
def test_an_option_is_sent_or_refused(kind, options):
    bare = outgoing(parse_request(CHAT), DIALECTS[kind], "theirs")
    body = None
    with refusals() as refused:
        body = outgoing(parse_request({**CHAT, **options}), DIALECTS[kind], "theirs")
    if body is None:
        assert (refused[0].where or "").split(".")[0] in (*options, "parallel_tool_calls")
        return
    assert set(body) <= set(KNOWN[kind])
    assert body["model"] == "theirs"
    assert body["stream"] is True
    if options:
        assert body != bare


@pytest.mark.parametrize("kind", sorted(DIALECTS))
def test_an_answer_does_not_depend_on_the_servers_own_defaults(kind):
    body = outgoing(parse_request(CHAT), DIALECTS[kind], "theirs")
    assert body["temperature"] == 0
    for field, neutral in (("top_k", 0), ("top_p", 1.0), ("min_p", 0.0)):
        if field in DIALECTS[kind].always:
            assert body[field] == neutral


def test_what_each_server_calls_it():
    asked = parse_request({**CHAT, "max_tokens": 5, "temperature": 1, "seed": 2**40 + 3})
    assert outgoing(asked, DIALECTS["openai"], "x")["max_completion_tokens"] == 5
    assert outgoing(asked, DIALECTS["vllm"], "x")["max_tokens"] == 5
    assert outgoing(asked, DIALECTS["llama.cpp"], "x")["seed"] < 2**31
    assert outgoing(asked, DIALECTS["vllm"], "x")["seed"] == 2**40 + 3
    regex = parse_request({**CHAT, "structured_outputs": {"regex": "a+"}})
    assert outgoing(regex, DIALECTS["vllm"], "x")["structured_outputs"] == {"regex": "a+"}
    assert outgoing(regex, DIALECTS["sglang"], "x")["regex"] == "a+"
    schema = parse_request(
        {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}
    )
    assert outgoing(schema, DIALECTS["llama.cpp"], "x")["response_format"]["json_schema"]["schema"] == SCHEMA
    text = parse_request({"model": "m", "prompt": "hello", "temperature": 0})
    body = outgoing(text, DIALECTS["vllm"], "x")
    assert (body["prompt"], body["max_tokens"], "messages" in body) == ("hello", 16, False)


def test_a_history_with_tool_calls_is_sent_as_it_was():
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ]
    body = outgoing(parse_request({**CHAT, "messages": messages, "tools": [TOOL]}), DIALECTS["vllm"], "x")
    assert body["messages"] == messages
    assert body["tools"] == [TOOL]


def test_the_more_urgent_has_the_better_number():
    order = [
        Directions(0, priority=9),
        Directions(0, priority=2),
        Directions(1),
        Directions(2, priority=5),
        Directions(2),
    ]

    def numbers(kind, priority=True):
        return [directed({}, DIALECTS[kind], d, priority=priority).get("priority") for d in order]

    assert numbers("vllm") == sorted(numbers("vllm"))
    assert numbers("sglang") == sorted(numbers("sglang"), reverse=True)
    assert set(numbers("vllm", priority=False) + numbers("llama.cpp")) == {None}


def test_the_salt_goes_to_those_that_take_one():
    took = {kind for kind, d in DIALECTS.items() if directed({}, d, Directions(salt="ab"), priority=False)}
    assert took == {"vllm", "sglang"} == {kind for kind, dialect in DIALECTS.items() if dialect.salt}
    assert directed({}, DIALECTS["vllm"], Directions(salt="ab"), priority=False) == {"cache_salt": "ab"}
    assert directed({}, DIALECTS["vllm"], Directions(), priority=False) == {}
