"""Clients that take their time: each holds a connection, and what it was answered, in the server's memory."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semantic_parrot.core.errors import RequestTimeout
from semantic_parrot.server.protocol import Protocol

#: Bytes of a request's head; also of what may come besides of a body in pieces, between two of them.
MAX_HEAD = 64 * 1024


class Impatient(Protocol):
    """Hangs up on who has not sent the whole head of a request, the first or a later one, within `slow` seconds from
    its first byte (of the first one: from the connection), and on who reads nothing of its answer for as long. Refuses
    heads larger than MAX_HEAD.

    Costs nothing for each piece of an answer, and no timer for a head that comes at once: the transport says when its
    buffer is full, and when it is no more. A connection that is to be closed would wait for the last byte to be read.
    """

    slow: ClassVar[float] = 60.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._read = 0  # since the last head was whole, or the last piece of a body
        self._unread: TimerHandle | None = None
        self._head: TimerHandle | None = self.loop.call_later(self.slow, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        super().data_received(data)
        if self._read > MAX_HEAD and not self.transport.is_closing():
            if self._answering:
                self.transport.abort()
            else:
                self.send_400_response(f"the head is larger than {MAX_HEAD} bytes")
        if self._answering:
            if self._head is not None:
                self._head.cancel()
                self._head = None
        elif self._head is None:  # part of a head, or what is left of a body whose answer is out
            self._head = self.loop.call_later(self.slow, self.transport.abort)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._read = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._read = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None and not self.transport.is_closing():
            self._unread.cancel()
            self._unread = None

    def _close(self) -> None:
        super()._close()
        self._watch()

    def _watch(self) -> None:
        """The client is to read something of what is there for it."""
        left = self._transport.get_write_buffer_size()
        if left and self._unread is None:
            self._unread = self.loop.call_later(self.slow, self._look, left)

    def _look(self, before: int) -> None:
        self._unread = None
        if self._transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch()


def impatient(slow: float) -> type[Impatient]:
    """For uvicorn, which makes one for each connection."""
    return type("Impatient", (Impatient,), {"slow": slow})


class Punctual:
    """A body that has not come whole within `slow` seconds is refused with 408."""

    def __init__(self, app: ASGIApp, slow: float) -> None:
        self._app = app
        self._slow = slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        due: float | None = asyncio.get_running_loop().time() + self._slow

        async def punctual() -> Message:
            nonlocal due
            if due is None:  # after the body comes the end of the connection, for which any time is right
                return await receive()
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                due = None
                raise RequestTimeout(f"the body was not there within {self._slow:g} s", where="body") from None
            if not message.get("more_body", False):
                due = None
            return message

        await self._app(scope, punctual, send)
