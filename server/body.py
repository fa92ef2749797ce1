"""Reading a request: its JSON body, its query. Whatever is wrong with them is an InvalidRequest that says where."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any, NoReturn

from fastapi import Request

from semantic_parrot.core.errors import BodyTooLarge, InvalidJSON, InvalidRequest, Unsupported

#: Deeper than any schema we know of, and far from Python's own limit, which every recursive walk would meet.
MAX_DEPTH = 128

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_object(request: Request, limit: int, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body. `optional`: no body at all is an empty object.

    Raises BodyTooLarge as soon as more than `limit` bytes are announced or have come; InvalidJSON, InvalidRequest.
    """
    raw = await _read(request, limit)
    if optional and not raw:
        return {}
    body = parse_json(raw)
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object", where="body")
    return body


def refuse_query(request: Request, known: Collection[str] = ()) -> None:
    """Raises InvalidRequest: a parameter that is not read would be obeyed by nobody, and neither would a second one."""
    for name, _ in request.query_params.multi_items():
        if name in known and len(request.query_params.getlist(name)) == 1:
            continue
        raise InvalidRequest(f"unknown or unsupported query parameter {name!r}", where=name)


def refuse_fields(body: dict[str, Any], known: Collection[str]) -> None:
    """Raises InvalidRequest for the first field that is not in `known`."""
    for name in body:
        if name not in known:
            raise InvalidRequest(f"unknown or unsupported field {name!r}", where=name)


async def _read(request: Request, limit: int) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Unsupported(f"Content-Encoding {encoding!r} is not supported", where="Content-Encoding")
    too_large = BodyTooLarge(f"the body is larger than {limit} bytes", where="body")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def parse_json(raw: bytes) -> Any:
    """`raw` as JSON: RFC 8259, so UTF-8 and no NaN; nested no deeper than MAX_DEPTH. Raises InvalidJSON."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
            _check_depth(value)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"the body is not UTF-8: byte {error.start}", where="body") from None
    except UnicodeEncodeError:
        raise InvalidJSON("the body has half of a surrogate pair, which is no character", where="body") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno} (char {error.pos})"
        raise InvalidJSON(f"the body is not valid JSON: {error.msg}: {place}", where="body") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise InvalidJSON(f"the body is not valid JSON: {error}", where="body") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"the body is not valid JSON: {name} is no JSON number", where="body")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJSON(f"the number {text[:32]} is out of range", where="body")
    return value


def _too_deep() -> InvalidJSON:
    return InvalidJSON(f"the body is nested deeper than {MAX_DEPTH} levels", where="body")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()
