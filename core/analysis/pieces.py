"""A request as the server sees it before a token is run: constant texts and variables, in prompt order.

A prefix is named by the text up to a boundary: the end of a constant, of a variable's value, or of a message. The
name depends on the text alone, not on how it was cut: a lowered call and an eager one with the same prompt share.
The server never tokenises; an engine does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

#: Prefixes shorter than this many characters are worth nothing to an engine.
SHORTEST = 32

#: Boundaries of one prompt that are kept: the first ones (what applications share) and the last (what a chat grows by).
FIRST, LAST = 4, 12


@dataclass(frozen=True, slots=True)
class Var:
    """The place of a variable's value."""

    name: str


Piece = str | Var


@dataclass(frozen=True, slots=True)
class Skeleton:
    """`site` names the call site: equal for calls with the same constants and settings. `constant`: its characters.
    `limit`: max_tokens, if any; `exact`: it generates that many whatever it writes."""

    pieces: tuple[Piece, ...]
    site: int
    constant: int
    limit: int | None
    exact: bool


def _content(node: Any, pieces: list[Piece]) -> None:
    if isinstance(node, str):
        pieces.append(node)
    elif isinstance(node, list):
        for part in node:
            _content(part["text"], pieces)
    elif node is not None:
        pieces.extend(part if isinstance(part, str) else Var(part["var"]) for part in node["$t"])


@lru_cache(maxsize=64)
def _marker(role: str) -> str:
    """Begins a message: one object for all of a role, as many wait at a time."""
    return f"\0{role}\0"


def skeleton(request: Mapping[str, Any]) -> Skeleton:
    """Of a valid request body, with or without templates."""
    pieces: list[Piece] = []
    if "messages" in request:
        if request.get("tools"):  # templates write them before the messages
            pieces.append(json.dumps(request["tools"]))
        for message in request["messages"]:
            role = message["role"]
            pieces.append(_marker(role) if isinstance(role, str) else "\0")
            _content(message.get("content"), pieces)
            for call in message.get("tool_calls") or ():
                _content(call["function"]["name"], pieces)
                _content(call["function"]["arguments"], pieces)
    else:
        _content(request["prompt"], pieces)
    limit = request.get("max_tokens") or request.get("max_completion_tokens")
    site, constant = crc32(f"{request.get('model')}\0{limit}".encode("utf-8", "surrogatepass")), 0
    for piece in pieces:
        if isinstance(piece, str):
            site = crc32(piece.encode("utf-8", "surrogatepass"), site)
            constant += len(piece)
        else:
            site = crc32(b"\1", site)
    return Skeleton(tuple(pieces), site << 32 | constant, constant, limit, bool(request.get("ignore_eos")))


def boundaries(pieces: Sequence[Piece], text_of: Callable[[str], str]) -> tuple[int, ...]:
    """The names of the prompt's prefixes, shortest first; a name's upper bits are its length (see `length_of`)."""
    crc = chars = 0
    found: list[int] = []
    for piece in pieces:
        text = piece if isinstance(piece, str) else text_of(piece.name)
        crc = crc32(text.encode("utf-8", "surrogatepass"), crc)
        chars += len(text)
        if chars >= SHORTEST and text[:1] != "\0":
            found.append(chars << 32 | crc)
    return tuple(found if len(found) <= FIRST + LAST else (*found[:FIRST], *found[-LAST:]))


def length_of(prefix: int) -> int:
    """Characters of a prefix, from its name."""
    return prefix >> 32
