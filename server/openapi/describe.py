"""The OpenAPI document: FastAPI knows the paths, OPERATIONS the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from semantic_parrot.server.openapi.answers import Error
from semantic_parrot.server.openapi.operations import OPERATIONS, Operation
from semantic_parrot.server.openapi.refusals import REFUSALS
from semantic_parrot.server.responses.items import ITEMS, PARTS

#: One event of a stream; `data` is JSON, or [DONE] at the end of a streamed completion.
_SSE = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["data"],
}
_PLACE = "#/components/schemas/{model}"


def describe(title: str, version: str, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document of `routes`. A route that OPERATIONS lacks is described by its path alone."""
    document = get_openapi(title=title, version=version, routes=routes)
    named = _schemas(document)
    for (method, path), operation in OPERATIONS.items():
        if method in document["paths"].get(path, {}):
            document["paths"][path][method] |= _operation(path, operation, document["paths"][path][method], named)
    return document


def _schemas(document: dict[str, Any]) -> dict[type[BaseModel], dict[str, Any]]:
    """Where each model's schema is in the document; they are added to it."""
    inputs = [operation.body for operation in OPERATIONS.values() if operation.body is not None]
    outputs: list[type[BaseModel]] = [op.answer for op in OPERATIONS.values() if op.answer is not None]
    checked: list[type[BaseModel]] = [*inputs, *ITEMS.values(), *PARTS.values()]
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    modes += [(model, "validation") for model in dict.fromkeys(checked)]
    answered: list[type[BaseModel]] = [*outputs, Error]
    modes += [(model, "serialization") for model in dict.fromkeys(answered)]
    places, found = models_json_schema(modes, ref_template=_PLACE)
    schemas = found["$defs"]
    text = {"type": "string"}
    parts = {"type": "array", "items": {"anyOf": [places[model, "validation"] for model in PARTS.values()]}}
    items = {"type": "array", "minItems": 1, "items": {"anyOf": [places[m, "validation"] for m in ITEMS.values()]}}
    # Checked by tables, so that errors name their place well.
    schemas["ResponsesRequest"]["properties"]["input"] = {"anyOf": [text, items]}
    schemas["MessageItem"]["properties"]["content"] = {"anyOf": [text, parts]}
    schemas["FunctionOutputItem"]["properties"]["output"] = {"anyOf": [text, parts]}
    schemas["_Message"] = _by_role(schemas["_Message"])
    key = {"type": "http", "scheme": "bearer", "description": "Asked for where others can reach the server."}
    document["components"] = {"schemas": schemas, "securitySchemes": {"key": key}}
    document["security"] = [{"key": []}, {}]
    return {model: places[model, mode] for model, mode in modes}


def _by_role(message: dict[str, Any]) -> dict[str, Any]:
    """What a validator checks: which fields go with which role."""
    nothing, content = {"type": "null"}, {"anyOf": message["properties"]["content"]["anyOf"][:2]}
    calls = {**message["properties"]["tool_calls"]["anyOf"][0], "minItems": 1}
    plain = {"tool_calls": nothing, "tool_call_id": nothing, "content": content}
    kinds: list[tuple[dict[str, Any], list[str]]] = [
        ({"role": {"enum": ["system", "developer", "user", "assistant"]}, **plain}, ["content"]),
        ({"role": {"const": "assistant"}, "tool_call_id": nothing, "tool_calls": calls}, ["tool_calls"]),
        (
            {**plain, "role": {"const": "tool"}, "tool_call_id": {"type": "string"}},
            ["content", "tool_call_id"],
        ),
    ]
    own = {"type": "object", "additionalProperties": False}
    return {
        "anyOf": [
            {**own, "properties": message["properties"] | fields, "required": ["role", *needed]}
            for fields, needed in kinds
        ]
    }


def _operation(
    path: str, operation: Operation, known: dict[str, Any], named: dict[type[BaseModel], dict[str, Any]]
) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": {"type": "string"}} for media in operation.others}
    if operation.answer is not None:
        content["application/json"] = {"schema": named[operation.answer]}
    if operation.streams:
        content["text/event-stream"] = {"schema": _SSE}
    refusal = {"application/json": {"schema": named[Error]}}
    responses = {str(status): {"description": "The answer.", "content": content} for status in operation.statuses}
    responses |= {s: found.described(refusal) for s, found in REFUSALS.items() if found.applies(path, operation)}
    # The only other one that a request can bring about is 504, by a deadline of its own.
    responses |= {"4XX": {"description": "Refused.", "content": refusal}}
    responses |= {"5XX": {"description": "Not the request's fault, or its deadline.", "content": refusal}}
    found: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if operation.body is not None:
        body = {"application/json": {"schema": named[operation.body]}}
        found["requestBody"] = {"required": operation.body_required, "content": body}
    for where, parameters in (("query", operation.query), ("header", operation.headers)):
        given = [{"name": name, "in": where, "schema": schema} for name, schema in parameters.items()]
        if given:
            found["parameters"] = [*found.get("parameters", known.get("parameters", ())), *given]
    return found
