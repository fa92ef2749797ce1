"""What an answer must look like: `response_format` and `structured_outputs` of a request, as an engine takes them.

The grammar library sits with the engine. Here is what needs no library: what a request may ask, and the bounds within
which the library's own work stays small, whatever a client sends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.regexes import compile_alone

#: Of a schema as compact JSON; compiling takes up to a second for this much.
MAX_CHARACTERS = 65_536
#: Objects and lists in a schema.
MAX_NODES = 2_000
#: Names of one object.
MAX_PROPERTIES = 500
#: Of a regex as RE2 compiles it. The first mask takes time in its square: 0.25 s for this many.
MAX_INSTRUCTIONS = 5_000


@dataclass(frozen=True, slots=True)
class Grammar:
    """`kind` json: `text` is a JSON schema; regex: a pattern of the whole answer; choice: a JSON list of the possible
    answers; lark: the engine's own. `where` names the field it came from."""

    kind: Literal["json", "regex", "choice", "lark"]
    text: str
    where: str


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _JSONSchema(_Body):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    body: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    # The grammar enforces every keyword it takes and refuses the others, so both values mean the same.
    strict: bool | None = None


class ResponseFormat(_Body):
    """OpenAI's."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JSONSchema | None = None

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type 'json_schema', and to no other")
        return self

    def grammar(self) -> Grammar | None:
        if self.type == "text":
            return None
        if self.json_schema is None or self.json_schema.body is None:
            return schema_grammar({"type": "object"}, "response_format")
        return schema_grammar(self.json_schema.body, "response_format.json_schema.schema")


class StructuredOutputs(_Body):
    """vLLM's, as far as it says what the answer is: exactly one of its fields."""

    body: Annotated[dict[str, Any] | None, Field(alias="json")] = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)] | None = None
    json_object: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> StructuredOutputs:
        given = [self.body, self.regex, self.choice, self.json_object]
        if sum(value is not None for value in given) != 1:
            raise ValueError("exactly one of json, regex, choice and json_object must be given")
        return self

    def grammar(self) -> Grammar:
        if self.regex is not None:
            check_pattern(self.regex, "structured_outputs.regex")
            return Grammar("regex", self.regex, "structured_outputs.regex")
        if self.choice is not None:
            text = json.dumps(self.choice)
            if len(text) > MAX_CHARACTERS:
                raise InvalidRequest("the choices are too long", where="structured_outputs.choice")
            return Grammar("choice", text, "structured_outputs.choice")
        return schema_grammar({"type": "object"} if self.body is None else self.body, "structured_outputs.json")


def grammar_of(response_format: ResponseFormat | None, structured: StructuredOutputs | None) -> Grammar | None:
    """Raises InvalidRequest, `where` the field."""
    grammar = None if response_format is None else response_format.grammar()
    if structured is None:
        return grammar
    if grammar is not None:
        raise InvalidRequest(
            "response_format and structured_outputs both say what the answer is", where="structured_outputs"
        )
    return structured.grammar()


def schema_grammar(schema: Mapping[str, Any], where: str) -> Grammar:
    """The grammar of a JSON schema. Raises InvalidRequest for one that is too large, or has a regex that is."""
    _check_size(schema, where)
    # In the order that was sent: it is the order in which the answer has its properties.
    text = json.dumps(schema, separators=(",", ":"), ensure_ascii=True)
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the schema has more than {MAX_CHARACTERS} characters", where=where)
    return Grammar("json", text, where)


def _check_size(schema: Mapping[str, Any], where: str) -> None:
    queue: list[Any] = [schema]
    nodes = 0
    while queue:
        node = queue.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise InvalidRequest(f"the schema has more than {MAX_NODES} objects and lists", where=where)
        if isinstance(node, dict):
            if len(node) > MAX_PROPERTIES:
                raise InvalidRequest(f"an object of the schema has more than {MAX_PROPERTIES} names", where=where)
            if isinstance(pattern := node.get("pattern"), str):
                check_pattern(pattern, where)
            if isinstance(patterns := node.get("patternProperties"), dict):
                for pattern in patterns:
                    check_pattern(pattern, where)
        below = node.values() if isinstance(node, dict) else node
        queue += [value for value in below if isinstance(value, dict | list)]


def check_pattern(pattern: str, where: str) -> None:
    """Raises InvalidRequest for a regex that RE2 refuses, or that explodes once compiled."""
    import re2

    try:
        size = compile_alone(pattern).programsize
    except re2.error as error:
        why = error.args[0] if error.args else error
        text = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise InvalidRequest(f"the regex {pattern[:80]!r} is refused: {text}", where=where) from None
    if size > MAX_INSTRUCTIONS:
        raise InvalidRequest(f"the regex {pattern[:80]!r} is too large once compiled", where=where)
