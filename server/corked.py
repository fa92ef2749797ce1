"""A transport that sends what is written in one turn of the event loop in one piece.

A response is written in pieces: its head, the events that are there already, its end. Each would be a system call,
which costs more than making the piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

#: Held at most: what a response writes without a pause must still meet the transport's own limit.
MOST = 64 * 1024


class Corked:
    """`transport`, whose writes wait for the end of the turn; to be closed by `close`, before which all is written.
    All else is the transport's own."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, close: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._closed = False
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > MOST:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._closed = True
        self._close()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def _flush(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if held:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
