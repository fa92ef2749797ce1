"""What a request may ask of its answer's form, and the bounds within which that stays cheap."""

from __future__ import annotations

import json

import pytest

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.grammar import MAX_NODES, MAX_PROPERTIES, Grammar
from semantic_parrot.core.request import parse_request

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


def wrapped(schema, **fields):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **fields}}}


@pytest.mark.parametrize("base", [CHAT, {"model": "m", "prompt": "hello"}])
@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        (wrapped(SCHEMA), "json", SCHEMA),
        (wrapped(SCHEMA, strict=True, description="d"), "json", SCHEMA),
        ({"response_format": {"type": "json_object"}}, "json", {"type": "object"}),
        ({"structured_outputs": {"json": SCHEMA}}, "json", SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json", {"type": "object"}),
        ({"structured_outputs": {"choice": ["b", "a"]}}, "choice", ["b", "a"]),
        ({"structured_outputs": {"regex": "[0-9]+"}}, "regex", "[0-9]+"),
    ],
)
def test_taken(base, fields, kind, text):
    grammar = parse_request(base | fields).grammar
    assert grammar is not None
    assert grammar.kind == kind
    if kind == "regex":
        assert grammar.text == text
    else:
        assert list(json.loads(grammar.text)) == list(text)  # the order of the properties is that of the answer
        assert json.loads(grammar.text) == text


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}, {"response_format": None}])
def test_free(fields):
    assert parse_request(CHAT | fields).grammar is None


MANY = {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}}
DEEP = {"type": "array", "items": {}}
for _ in range(MAX_NODES):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "n"}}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        (wrapped("no object"), "response_format.json_schema.schema"),
        (wrapped(DEEP), "response_format.json_schema.schema"),
        (wrapped(MANY), "response_format.json_schema.schema"),
        (wrapped({"enum": ["x" * 70_000]}), "response_format.json_schema.schema"),
        (wrapped({"type": "string", "pattern": "(a?){5000}a{5000}"}), "response_format.json_schema.schema"),
        (wrapped({"patternProperties": {"(a{900}){900}": {}}}), "response_format.json_schema.schema"),
        ({"structured_outputs": {"regex": "(a{1000}){1000}"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "(.{0,500}x){0,500}"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "["}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["x" * 70_000]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a"], "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"guided_json": SCHEMA}, "guided_json"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ],
)  # fmt: skip
def test_refused_by_name(fields, where):
    with pytest.raises(InvalidRequest) as refused:
        parse_request(CHAT | fields, prefix="calls[0].request")
    assert refused.value.where == f"calls[0].request.{where}"


def test_the_kinds_say_where_they_come_from():
    assert parse_request(CHAT | {"structured_outputs": {"regex": "a"}}).grammar == Grammar(
        "regex", "a", "structured_outputs.regex"
    )
