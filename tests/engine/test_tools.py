"""Tool calls in the formats of three families: what a model wrote as content and calls, and grammars that force one."""

from __future__ import annotations

import json

import jsonschema
import pytest
from tiny_models import make_tokenizer
from tool_templates import TOOLS, add_tools, opening

from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engine.tool_format import ToolParser
from semantic_parrot.core.engine.tool_formats import FORMATS, tool_format
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.request import Message, parse_request
from semantic_parrot.core.tools import CallDelta

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "at": {"$ref": "#/$defs/at"}},
    "required": ["city", "at"],
    "additionalProperties": False,
    "$defs": {"at": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}},
}
OFFERED = [
    {"type": "function", "function": {"name": "f", "description": "It does f.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g"}},
]
ASK = [{"role": "user", "content": "What now?"}]


def call(name, arguments, key="arguments"):
    return json.dumps({"name": name, key: arguments})


def split(format, text, step, *, live=False):
    """(content, calls) of a text that comes in pieces of `step` characters."""
    parser = ToolParser(FORMATS[format], ("f", "g"), live=live)
    pieces = [text[i : i + step] for i in range(0, len(text), step)]
    found = [part for piece in pieces for part in parser.feed(piece)] + list(parser.feed("", last=True))
    calls: list[list[str]] = []
    for part in found:
        if isinstance(part, CallDelta):
            assert part.index == len(calls) - (part.id is None)
            if part.id is None:
                calls[part.index][1] += part.arguments
            else:
                calls.append([part.name, part.arguments])
    return "".join(part for part in found if isinstance(part, str)), [(n, json.loads(a)) for n, a in calls]


TRICKY = {"x": '}{"</tool_call>]\\', "y": [{"z": None}]}


@pytest.mark.parametrize(
    ("format", "text", "content", "calls"),
    [
        ("hermes", f"hi \n<tool_call>\n{call('f', TRICKY)}\n</tool_call>\n<tool_call>\n{call('g', {})}\n</tool_call>\n",
         "hi", [("f", TRICKY), ("g", {})]),
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "g"}</tool_call> and so', " and so", [("g", {"a": 1})]),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", {"a": 1})]),
        ("hermes", "  a < b, plain text  ", None, []),
        ("hermes", "a <tool_call> nothing", None, []),
        ("hermes", f"x <tool_call>{call('nobody', {})}</tool_call> y", None, []),
        ("hermes", "x <tool_call>{'name': 'f'}</tool_call>", None, []),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', None, []),
        ("hermes", f"<tool_call>\n{call('f', {'a': 1})[:-1]}", None, []),
        ("hermes", "ends with <tool_ca", None, []),
        ("mistral", f"[TOOL_CALLS] [{call('f', TRICKY)}, {call('g', {})}]", "", [("f", TRICKY), ("g", {})]),
        ("mistral", f"[TOOL_CALLS][{call('f', {})}", "", [("f", {})]),
        ("mistral", "so [TOOL_CALLS] no list", None, []),
        ("mistral", '[TOOL_CALLS] [{"name": "f"', None, []),
        ("llama3", call("f", TRICKY, "parameters"), "", [("f", TRICKY)]),
        ("llama3", f"<|python_tag|>{call('f', {}, 'parameters')}; {call('g', {}, 'parameters')}", "",
         [("f", {}), ("g", {})]),
        ("llama3", f"Text {call('f', {}, 'parameters')}", None, []),
        ("llama3", ' {"an": "answer"} in JSON', None, []),
        ("llama3", "<|python_tag|>print(1)", None, []),
        ("llama3", "{", None, []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_content_and_calls(format, text, content, calls, step):
    """Malformed, unknown or unfinished calls are content, to the character."""
    assert split(format, text, step) == (text if content is None else content, calls)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_of_a_forced_call_the_arguments_come_as_they_are_written(step):
    text = f"<tool_call>\n{call('f', TRICKY)}\n</tool_call>\n<tool_call>\n{call('g', {})}\n</tool_call>"
    assert split("hermes", text, step, live=True) == ("", [("f", TRICKY), ("g", {})])
    parser = ToolParser(FORMATS["hermes"], ("f",), live=True)
    early = list(parser.feed('<tool_call>\n{"name": "f", "arguments": {"x": "be'))
    assert [(part.name, part.arguments) for part in early if isinstance(part, CallDelta)] == [("f", '{"x": "be')]


@pytest.fixture(params=sorted(TOOLS))
def format(request):
    return request.param


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls_of_a_random_model(tiny, bench, format, choice, parallel):
    b = bench(tiny("llama", tools=format))
    body = {"model": "m", "messages": ASK, "tools": OFFERED, "tool_choice": choice, "parallel_tool_calls": parallel}
    requests = [parse_request(body | {"seed": seed, "max_tokens": 200}) for seed in range(5)]
    done = b.run(*requests)
    for d in done:
        assert d.reason == "stop"
        content, calls = split(format, d.text, 1000, live=True)
        assert content == ""
        assert split(format, d.text, 1000) == (content, calls)  # what is forced is what is recognised
        assert len(calls) == 1 or (parallel and choice == "required")
        for name, arguments in calls:
            assert name == "f" or (choice == "required" and name == "g")
            jsonschema.validate(arguments, SCHEMA if name == "f" else {"maxProperties": 0})


def test_the_format_is_found_in_the_template(format):
    tokenizer = make_tokenizer()
    assert tool_format(tokenizer) is None
    add_tools(tokenizer, format)
    assert tool_format(tokenizer) is FORMATS[format]


def request_of(**fields):
    return parse_request({"model": "m", "messages": ASK, "tools": OFFERED, **fields})


def test_tools_and_calls_are_in_the_prompt(tiny, bench, format):
    text: TextModel = bench(tiny("llama", tools=format)).loop.text
    request = request_of(
        messages=[
            *ASK,
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": '{"city": "Oslo"}'}}]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "It rains."},
        ]
    )  # fmt: skip
    rendered = text.render(request.messages, request.tools)
    assert "It does f." in rendered
    assert '{"city": "Oslo"}' in rendered  # as an object, not as a text within a text
    assert rendered.index("Oslo") < rendered.index("It rains.")
    assert "It does f." not in text.render(
        request_of(tool_choice="none").messages, request_of(tool_choice="none").tools
    )


def test_a_template_that_ignores_tools_is_refused(tiny, bench, monkeypatch):
    b = bench(tiny("llama"))
    bad = b.submit(request_of())
    assert b.failed[bad].where == "tools"
    text: TextModel = b.loop.text
    function = {"name": "f", "arguments": "{}"}
    asked = request_of(
        messages=[*ASK, {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}],
        tool_choice="none",
    )
    with pytest.raises(InvalidRequest, match="ignores tool_calls"):
        text.render(asked.messages, asked.tools)
    monkeypatch.setattr(text, "_format", FORMATS["hermes"])
    with pytest.raises(InvalidRequest, match="ignores tools"):
        text.render(request_of().messages, request_of().tools)
    assert b.run(request_of(tool_choice="none", max_tokens=3))[0].usage.completion == 3


def test_what_opens_a_call_is_shown_though_it_is_special(tiny, bench, format):
    b = bench(tiny("llama", tools=format))
    token, special = opening(format)
    (id,) = b.loop.text._ids(token, special=False)
    assert b.loop.text.stream((), calls=True).push(id) == token
    assert b.loop.text.stream(()).push(id) == ("" if special else token)


def test_messages_are_tokenised_with_their_tools(tiny, bench):
    text: TextModel = bench(tiny("llama", tools="hermes")).loop.text
    request = request_of()
    whole = text.encode(request.messages, request.tools)
    known = text.beginning(request.messages, request.tools).sure
    assert known == whole[: len(known)]
    assert len(whole) > len(text.encode((Message("user", "What now?"),)))
