"""Calls that go out by themselves: what of their prompts earlier calls have made is named to the server, and what they
make is remembered. Only a Parrot server is told anything, and only what it said itself is remembered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from semantic_parrot.adapters.courier import COURIERS
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.openai_http import http
from semantic_parrot.adapters.planning import switched_off
from semantic_parrot.adapters.provenance import first_text
from semantic_parrot.adapters.replay import to_json

#: Bytes of a request or response; longer ones are left alone.
MOST = 1_000_000

JSON, EVENTS = "application/json", "text/event-stream"


def told(endpoint: Endpoint, request: Any) -> Any:
    """`request` with its `parrot.sources`; the same one, if it has none."""
    origins = COURIERS.origins
    if origins.empty or switched_off() or not _concerned(request):
        return request
    body = json.loads(request.content)
    stated = body.get("parrot") or {}
    if not isinstance(stated, dict) or "sources" in stated:
        return request
    found = origins.sources(endpoint, body)
    if not found:
        return request
    body["parrot"] = {**stated, "sources": [source.model_dump(exclude_none=True) for source in found]}
    headers = request.headers.copy()
    headers.pop("content-length", None)
    return http.Request(
        request.method, request.url, headers=headers, content=to_json(body), extensions=request.extensions
    )


def heard(endpoint: Endpoint, request: Any, response: Any) -> Any:
    """`response`, whose value is remembered once all of it has been read."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    plain = "content-encoding" not in response.headers
    if response.status_code == 200 and plain and kind in (JSON, EVENTS) and _concerned(request) and not switched_off():
        response.stream = _Heard(response.stream, endpoint, kind)
    return response


def _concerned(request: Any) -> bool:
    if request.method != "POST" or not request.url.path.endswith("/completions"):
        return False
    return int(request.headers.get("content-length", MOST)) < MOST


class _Heard(http.SyncByteStream, http.AsyncByteStream):
    """A body as it came."""

    def __init__(self, stream: Any, endpoint: Endpoint, kind: str) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._kind = kind
        self._pieces: list[bytes] | None = []
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._keep(piece)
            yield piece
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._keep(piece)
            yield piece
        self._end()

    def close(self) -> None:
        self._end()
        self._stream.close()

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._pieces is not None:
            self._pieces.append(piece)
            if self._size > MOST:
                self._pieces = None

    def _end(self) -> None:
        """All that anybody wants of it has been read."""
        pieces, self._pieces = self._pieces, None
        if pieces:
            response = _whole(b"".join(pieces), self._kind)
            if isinstance(response.get("parrot"), dict) and isinstance(response.get("id"), str):
                COURIERS.origins.remember(self._endpoint, first_text(response), None, response["id"])


def _whole(body: bytes, kind: str) -> Mapping[str, Any]:
    """The response that `body` is or adds up to, as far as it is looked at; nothing, if it is none or broke off."""
    try:
        if kind == JSON:
            found = json.loads(body)
            return found if isinstance(found, dict) else {}
        blocks = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        if not blocks or blocks.pop().strip() != b"[DONE]":
            return {}
        return _added(json.loads(b"[" + b",".join(blocks) + b"]"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return {}


def _added(chunks: list[dict[str, Any]]) -> Mapping[str, Any]:
    text = ""
    told: Mapping[str, Any] = {}
    for chunk in chunks:
        told = chunk.get("parrot") or told
        for choice in chunk["choices"]:
            if choice["index"] == 0:
                text += (choice["delta"].get("content") if "delta" in choice else choice["text"]) or ""
    return {"id": chunks[0]["id"], "parrot": told, "choices": [{"text": text}]}
