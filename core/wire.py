"""Text templates, canonical JSON and the content key: one implementation for client and server.

A call's request is an OpenAI body in which ``{"$t": [text or {"var": name}, …]}`` may stand wherever a string
may. The content key is the hash of the *rendered* request as it was received: never of a validated model, which
would turn 0 into 0.0 or add defaults and so name a request that nobody sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from semantic_parrot.core.errors import DanglingReference, InvalidProgram
from semantic_parrot.core.value import JSON, as_text

TEMPLATE = "$t"

#: Fields that say how to deliver an answer or who asks for it, and so do not change the answer.
IGNORED = frozenset({"stream", "stream_options", "user", "metadata", "parrot"})

Request = Mapping[str, JSON]


def template(*parts: str | tuple[str]) -> dict[str, list[JSON]]:
    """A template of constant texts and references: ``template("Merge: ", ("a",))`` refers to variable ``a``."""
    return {TEMPLATE: [part if isinstance(part, str) else {"var": part[0]} for part in parts]}


def parts_of(node: Mapping[str, JSON], where: str) -> list[JSON]:
    """Of a template. Raises InvalidProgram if it is none."""
    parts = node[TEMPLATE]
    if len(node) != 1 or not isinstance(parts, list):
        raise InvalidProgram(f"a template is an object with the one key {TEMPLATE!r} and a list", where=where)
    for i, part in enumerate(parts):
        if isinstance(part, str):
            continue
        if not (isinstance(part, dict) and len(part) == 1 and isinstance(part.get("var"), str)):
            place = f"{where}.{TEMPLATE}[{i}]"
            raise InvalidProgram('a template part is a text or {"var": name}', where=place)
    return parts


def _collect(node: JSON, found: dict[str, None], where: str) -> None:
    if isinstance(node, dict):
        if TEMPLATE in node:
            for part in parts_of(node, where):
                if not isinstance(part, str):
                    found[part["var"]] = None
        else:
            for key, value in node.items():
                if not isinstance(value, str):
                    _collect(value, found, f"{where}.{key}" if where else "")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            if not isinstance(value, str):
                _collect(value, found, f"{where}[{i}]" if where else "")


def references(request: Request, where: str = "request") -> tuple[str, ...]:
    """The variables that `request` reads, each once, in the order of their first use.

    Raises InvalidProgram, with the place, for a malformed template.
    """
    found: dict[str, None] = {}
    try:
        _collect(request, found, "")
    except InvalidProgram:
        _collect(request, found, where)  # again, with places: they cost more than all the rest
        raise
    return tuple(found)


def render(request: Request, values: Mapping[str, JSON]) -> dict[str, JSON]:
    """`request` with every template replaced by its text (`as_text` of what is not). Raises DanglingReference for a
    missing value."""

    def text(part: JSON) -> str:
        if isinstance(part, str):
            return part
        try:
            return as_text(values[part["var"]])
        except KeyError:
            raise DanglingReference(f"variable {part['var']!r} has no value", where=part["var"]) from None

    def walk(node: JSON) -> JSON:
        if isinstance(node, dict):
            if TEMPLATE in node:
                return "".join(map(text, parts_of(node, "request")))
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return node

    return {key: walk(value) for key, value in request.items()}


def canonical(request: Request) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, ASCII only, without the fields in IGNORED."""
    kept = {key: value for key, value in request.items() if key not in IGNORED}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def content_key(request: Request) -> str:
    """SHA-256 (hex) of the canonical form of a rendered request. Equal keys mean the same request."""
    return hashlib.sha256(canonical(request)).hexdigest()
