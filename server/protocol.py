"""HTTP/1.1 on one connection: uvicorn's own, made to answer so that the client can read it."""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.server.corked import Corked

#: What is read and thrown away of a request that was refused, and for how long.
LINGER_BYTES = 256 * 1024 * 1024
LINGER_SECONDS = 5.0

#: In the scope of a request: a future that is done when its client has hung up.
HUNG_UP = "parrot.hung_up"


class Protocol(HttpToolsProtocol):
    """Writes a response in few pieces, says what is no HTTP in JSON, and hangs up so that the answer is not lost.

    A socket that is closed with unread input is reset, and the reset may overtake the answer. So a connection that is
    to be closed while its client still sends is closed in one direction first, and what comes is thrown away for a
    while (nginx calls it a lingering close).

    Who asks for another protocol, as Java's client does for HTTP/2 with every request, is answered in this one.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._lingering: TimerHandle | None = None
        self._left = LINGER_BYTES
        self._legible = True
        self._hung_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        corked = Corked(transport, asyncio.get_running_loop(), self._close)
        super().connection_made(cast(asyncio.Transport, corked))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._hung_up.set_result(None)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[HUNG_UP] = self._hung_up

    def on_body(self, body: bytes) -> None:
        # No route reads a GET's: if it were kept, reading would stop there, and not see that the client hangs up.
        if self.scope["method"] != "GET":
            super().on_body(body)

    def _close(self) -> None:
        whole = self._legible and self.cycle is not None and not self.cycle.more_body
        if whole or self._lingering is not None or self._transport.is_closing():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection, and will read nothing
            self._transport.close()
            return
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(LINGER_SECONDS, self._transport.close)

    def data_received(self, data: bytes) -> None:
        if self._lingering is None:
            self._feed(memoryview(data))
            return
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()

    def _feed(self, data: memoryview) -> None:
        self._unset_keepalive_if_required()
        try:
            while (wish := self._parse(data)) is not None:
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("this server is no proxy")
                    return
                self.parser.feed_data(self._without_wish())
                data = data[wish:]
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _parse(self, data: memoryview) -> int | None:
        """Where the head of a request for another protocol ends: there the parser stops, as if it had no body."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as wish:
            end: int = wish.args[0]
            return end
        return None

    def _without_wish(self) -> bytes:
        """The head that the parser has just read, without what made it stop."""
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = (b"%s: %s" % field for field in self.headers if field[0] != b"upgrade")
        return b"\r\n".join((first, *kept, b"\r\n"))

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._legible = False
        body = json.dumps(InvalidRequest(f"this is not HTTP: {msg}").body()).encode()
        head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
