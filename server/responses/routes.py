"""POST /v1/responses."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import InternalError, InvalidRequest, ParrotError
from semantic_parrot.server.body import read_object, refuse_query
from semantic_parrot.server.eager import Items, next_item
from semantic_parrot.server.responses.body import chat_body, own_names, parse_body
from semantic_parrot.server.responses.events import Event, Events
from semantic_parrot.server.responses.resource import Resource
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import EventStream, data, unless_gone
from semantic_parrot.server.tenants.identity import tenant_of

log = logging.getLogger(__name__)


def _written(events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        yield f"event: {event['type']}\ndata: {data(event)}\n\n"


async def _blocks(events: Events, first: Delta | Done, items: Items) -> AsyncGenerator[str, None]:
    """The response as SSE blocks. The status line is long gone when an error comes, so the error is an event."""
    for block in _written(events.start()):
        yield block
    try:
        item = first
        while isinstance(item, Delta):
            for block in _written(events.delta(item)):
                yield block
            item = await next_item(items)
        for block in _written(events.finish(item)):
            yield block
    except ParrotError as error:
        for block in _written(events.fail(error)):
            yield block
    except Exception:
        log.exception("a streamed response")
        for block in _written(events.fail(InternalError("a bug in the server; its log says more"))):
            yield block
    finally:
        await items.aclose()


async def _whole(events: Events, items: Items) -> Event:
    """The last event: it has the whole response."""
    list(events.start())
    while isinstance(item := await next_item(items), Delta):
        list(events.delta(item))
    return list(events.finish(item))[-1]


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)
    runtime, settings = service.runtime, service.settings

    @router.post("/v1/responses")
    async def responses(request: Request) -> Response:
        refuse_query(request)
        with service.round_trip("/v1/responses"):
            body = await read_object(request, settings.max_body)
            parsed = parse_body(body)
            chat = chat_body(parsed, body)
            name = f"resp_{uuid.uuid4().hex}"
            events = Events(Resource(parsed, id=name, created=int(time.time())))
            try:
                items = runtime.generate(chat, tenant_of(request), name)
                if not parsed.stream:
                    return JSONResponse((await unless_gone(request, _whole(events, items)))["response"])
                # The status is decided by the first token: a prompt that is too long is a 400, not a broken stream.
                first = await unless_gone(request, next_item(items))
            except InvalidRequest as error:
                raise own_names(error) from None
        return EventStream(_blocks(events, first, items), heartbeat=settings.heartbeat)

    return router
