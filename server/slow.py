"""Clients that take their time: each holds a connection, and what it was answered, in the server's memory."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle, Transport
from typing import ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semantic_parrot.core.errors import RequestTimeout
from semantic_parrot.server.listener import Protocol


class Impatient(Protocol):
    """Hangs up on who has not sent the head of its first request, or does not read its answer, for `slow` seconds.

    Costs nothing for each piece of an answer: the transport says when its buffer is full, and when it is no more.
    """

    slow: ClassVar[float] = 60.0

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self._head: TimerHandle | None = self.loop.call_later(self.slow, self._hang_up_on_the_silent)
        self._full: TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._full):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = self.loop.call_later(self.slow, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._full is not None:
            self._full.cancel()
            self._full = None

    def _hang_up_on_the_silent(self) -> None:
        self._head = None
        if self.cycle is None:
            self.transport.abort()


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
