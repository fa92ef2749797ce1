"""The OpenAI routes: one eager call each, through the same scheduler and engines as everything else."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.engines.protocol import Delta, Done, ModelInfo
from semantic_parrot.core.errors import InternalError, InvalidRequest, ParrotError, UnknownModel, Unsupported
from semantic_parrot.core.request import is_chat
from semantic_parrot.core.response import Chunks, completion
from semantic_parrot.server.body import read_object, refuse_query
from semantic_parrot.server.eager import Items, last_item, next_item
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import EventStream, data, unless_gone
from semantic_parrot.server.tenants.identity import tenant_of

log = logging.getLogger(__name__)


def _error_block(error: ParrotError) -> str:
    return f"data: {data(error.body())}\n\n"


class Deltas:
    """The SSE blocks of a response's deltas. Most of what a stream sends is these, which are always the same but for
    the text: so JSON is made once for each choice, around a text that nothing else in it can be."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._around: dict[int, tuple[str, str]] = {}

    def block(self, delta: Delta) -> str:
        if delta.calls or delta.logprobs:
            return f"data: {data(self._chunks.delta(delta))}\n\n"
        around = self._around.get(delta.index)
        if around is None:
            before, _, after = data(self._chunks.delta(Delta("\0", index=delta.index))).rpartition('"\\u0000"')
            around = self._around[delta.index] = f"data: {before}", f"{after}\n\n"
        return f"{around[0]}{encode_basestring_ascii(delta.text)}{around[1]}"


async def _blocks(chunks: Chunks, first: Delta | Done, items: Items, *, usage: bool) -> AsyncGenerator[str, None]:
    """The response as SSE blocks. The status line is long gone when an error comes, so the error is a block too."""
    for opening in chunks.first():
        yield f"data: {data(opening)}\n\n"
    deltas, item = Deltas(chunks), first
    try:
        if isinstance(item, Delta):
            yield deltas.block(item)
            async for item in items:
                if isinstance(item, Done):
                    break
                yield deltas.block(item)
        assert isinstance(item, Done), "an answer had no end"
        for last in chunks.last(item):
            yield f"data: {data(last)}\n\n"
        if usage:
            yield f"data: {data(chunks.usage(item))}\n\n"
    except ParrotError as error:
        yield _error_block(error)
    except Exception:
        log.exception("a streamed completion")
        yield _error_block(InternalError("a bug in the server; its log says more"))
    finally:
        await items.aclose()
    yield "data: [DONE]\n\n"


def _check(body: Mapping[str, Any], *, chat: bool) -> None:
    """What the route, rather than the request, decides. The rest is `parse_request`'s."""
    if is_chat(body) != chat:
        message = "messages is required here" if chat else "messages belongs to /v1/chat/completions"
        raise InvalidRequest(message, where="messages")
    if body.get("stream_options") is not None and not body.get("stream"):
        raise InvalidRequest("stream_options needs stream: true", where="stream_options")


def _one_prompt(body: dict[str, Any]) -> dict[str, Any]:
    """Some clients send a list of prompts, also if there is one."""
    match body.get("prompt"):
        case [str(prompt)]:
            return {**body, "prompt": prompt}
    return body


def _model(name: str, info: ModelInfo, created: int) -> dict[str, Any]:
    root = info.names[0]
    fixed = {"object": "model", "created": created, "owned_by": "parrot"}
    return {"id": name, **fixed, "root": root, "max_model_len": info.context}


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)
    runtime, settings = service.runtime, service.settings
    started = int(time.time())

    async def answer(request: Request, route: str, *, chat: bool) -> Response:
        name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        created = int(time.time())
        refuse_query(request)
        with service.round_trip(route):
            body = _one_prompt(await read_object(request, settings.max_body))
            _check(body, chat=chat)
            items = runtime.generate(body, tenant_of(request), name)
            if not body.get("stream"):
                done = await unless_gone(request, last_item(items))
                return JSONResponse(completion(body, done, id=name, created=created))
            # The status is decided by the first token: a prompt that is too long is a 400, not a broken stream.
            first = await unless_gone(request, next_item(items))
        usage = (body.get("stream_options") or {}).get("include_usage", False)
        stream = _blocks(Chunks(body, id=name, created=created), first, items, usage=usage)
        return EventStream(stream, heartbeat=settings.heartbeat)

    @router.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await answer(request, "/v1/chat/completions", chat=True)

    @router.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, "/v1/completions", chat=False)

    @router.get("/v1/models")
    async def models(request: Request) -> Response:
        """Every name that a request may use, aliases included; `root` is the model's own."""
        refuse_query(request)
        found = [_model(name, info, started) for name, info in runtime.models.items()]
        return JSONResponse({"object": "list", "data": found})

    @router.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        refuse_query(request)
        info = runtime.models.get(name)
        if info is None:
            raise UnknownModel(f"no model {name!r} here", where=name)
        return JSONResponse(_model(name, info, started))

    @router.post("/v1/embeddings")
    async def embeddings(_: Request) -> Response:
        # Not 501: OpenAI's clients take every 5xx for a passing trouble and try again.
        raise Unsupported("Parrot serves text generation only; it has no embeddings", where="/v1/embeddings")

    return router
