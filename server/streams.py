"""Server-sent events, and work that ends when its client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

HEARTBEAT = b": heartbeat\n\n"


def data(value: Any) -> str:
    """`value` as JSON in one line of ASCII: some clients also split lines at U+0085 and U+2028."""
    return json.dumps(value, separators=(",", ":"))


async def disconnected(receive: Receive) -> None:
    """Until the client hangs up. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. Raises ClientDisconnect then."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _stop(task, gone)


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _nothing() -> None:
    pass


class EventStream(Response):
    """Sends `blocks` as they come, with a heartbeat between them, until they end or the client hangs up.

    `blocks` is always closed and `closed` always called, however it ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self, blocks: AsyncGenerator[str, None], *, heartbeat: float, closed: Callable[[], None] = _nothing
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._blocks = blocks
        self._heartbeat = heartbeat
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._run(receive, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._closed()

    async def _run(self, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(send))
        beat = asyncio.create_task(self._beat(send))
        gone = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            await _stop(pump, beat, gone)
            await self._blocks.aclose()

    async def _pump(self, send: Send) -> None:
        async for block in self._blocks:
            await send({"type": "http.response.body", "body": block.encode(), "more_body": True})

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
