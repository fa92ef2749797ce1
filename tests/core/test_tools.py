"""The fields of tools: what is taken, and what is refused by name."""

from __future__ import annotations

import pytest

from semantic_parrot.core.analysis import skeleton
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.request import parse_request

ASK = [{"role": "user", "content": "What now?"}]
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g"}}
BASE = {"model": "m", "messages": ASK, "tools": [F, G]}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CHOSEN = {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    ("fields", "forced", "names", "parallel"),
    [
        ({}, False, ("f", "g"), True),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, False, ("f", "g"), False),
        ({"tool_choice": "required"}, True, ("f", "g"), True),
        ({"tool_choice": CHOSEN}, True, ("g",), False),
    ],
)
def test_taken(fields, forced, names, parallel):
    tools = parse_request(BASE | fields).tools
    assert tools is not None
    assert (tools.forced, tools.names, tools.parallel) == (forced, names, parallel)
    assert [tool.name for tool in tools.tools] == ["f", "g"]


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": None}])
def test_none_are_offered(fields):
    assert parse_request(BASE | fields).tools is None


def test_history():
    request = parse_request(
        BASE
        | {
            "messages": [
                *ASK,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "done"}], "name": "f"},
            ]
        }
    )
    assert request.messages is not None
    _, assistant, tool = request.messages
    assert [(c.id, c.name, c.arguments) for c in assistant.calls] == [("1", "f", '{"a": 1}')]
    assert (assistant.content, tool.content, tool.call_id, tool.name) == ("", "done", "1", "f")


def arguments(text):
    return {
        "messages": [*ASK, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": text}}]}]
    }


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [F, F]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"pattern": "("}}}]},
         "tools[0].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools[0].function.strict"),
        ({"tools": [{**F, "function": {"name": "f", "surprise": 1}}]}, "tools[0].function.surprise"),
        ({"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]}, "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice.function.name"),
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tools": None, "parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "tools"),
        (arguments("{"), "messages[1].tool_calls[0].function.arguments"),
        (arguments("[1]"), "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [*ASK, {"role": "assistant"}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0]"),
        ({"messages": [*ASK, {"role": "tool", "content": "x"}]}, "messages[1]"),
        ({"functions": []}, "functions"),
        ({"function_call": "auto"}, "function_call"),
    ],
)  # fmt: skip
def test_refused_by_name(fields, where):
    with pytest.raises(InvalidRequest) as refused:
        parse_request(BASE | fields)
    assert refused.value.where == where


def test_strict_is_taken_where_it_is_kept():
    strict = {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}], "tool_choice": "required"}
    assert parse_request(BASE | strict).tools is not None


def test_tools_and_calls_are_part_of_the_prompt_that_is_planned_for():
    plain = skeleton({"model": "m", "messages": ASK})
    assert skeleton(BASE).constant > plain.constant
    history = {"messages": [*ASK, {"role": "assistant", "tool_calls": [CALL]}], "model": "m"}
    assert '{"a": 1}' in skeleton(history).pieces
