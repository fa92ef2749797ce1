"""Server-sent events, and work that ends when its client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from semantic_parrot.server.protocol import HUNG_UP

T = TypeVar("T")

HEARTBEAT = b": heartbeat\n\n"


#: In one line of ASCII: some clients also split lines at U+0085 and U+2028.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def data(value: Any) -> str:
    """`value` as the JSON of one event."""
    return _ENCODER.encode(value)


class WhileThere:
    """`async with WhileThere(scope):` cancels what is in it when the client hangs up, and raises ClientDisconnect.

    In the manner of asyncio.timeout: what is in it runs in the task that is there already.
    """

    def __init__(self, scope: Scope) -> None:
        self._hung_up: asyncio.Future[None] = scope[HUNG_UP]
        self._open, self._gone = True, False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._hung_up.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Future[None]) -> None:
        if self._open:
            self._gone = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._open = False
        self._hung_up.remove_done_callback(self._ended)
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnect from error


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. Raises ClientDisconnect then."""
    async with WhileThere(request.scope):
        return await work


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
        beats = _Beats(send, self._heartbeat)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with suppress(ClientDisconnect):
                async with WhileThere(scope), aclosing(self._blocks) as blocks:
                    async for block in blocks:
                        await send({"type": "http.response.body", "body": block.encode(), "more_body": True})
            beats.stop()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            beats.stop()
            self._closed()


class _Beats:
    """Heartbeats, every so many seconds. Most streams end before the first, so only that makes a task."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
            await asyncio.sleep(self._seconds)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
