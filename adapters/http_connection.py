"""HTTP/1.1 to one server, for the thread that reads runs: one request at a time on each connection.

httpx does as much and more, and its layers took two thirds of what a program of two calls cost the client. What is sent
and read here is h11's, which httpx stands on too; but a piece of a response is one call of a function.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import h11

from semantic_parrot.adapters.certificates import certificates

CONNECT_SECONDS = 5.0
#: Connections that are kept while nobody needs them.
KEPT = 64
MAX_HEAD = 100 * 1024

Feed = Callable[[bytes], None]


class BrokenConnection(ConnectionError):
    """The server hung up, fell silent or answered what is no HTTP."""


class _Connection(asyncio.Protocol):
    """Of one event loop, which tells it what has come; whoever awaits `exchange` learns of the end."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None
        self._feed: Feed | None = None
        self._status = 0
        self._refusal: list[bytes] = []
        self._heard = 0.0

    # Told by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._http.receive_data(data)
            self._read()
        except (h11.RemoteProtocolError, RuntimeError) as error:  # the latter: data after the end
            self._end(BrokenConnection(str(error)))
        except Exception as error:  # of whoever is fed
            self._end(error)

    def eof_received(self) -> None:
        self.data_received(b"")  # a body that states no length ends so

    def connection_lost(self, error: Exception | None) -> None:
        self._end(BrokenConnection(f"the server hung up{f': {error}' if error else ''}"))

    def _read(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Data):
                if self._status >= 300:
                    self._refusal.append(bytes(event.data))
                elif self._feed is not None:
                    self._feed(bytes(event.data))
            elif isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.EndOfMessage):
                return self._end(None)
            elif not isinstance(event, h11.InformationalResponse):
                return  # no more for now

    def _end(self, error: Exception | None) -> None:
        ended, self._ended = self._ended, None
        if ended is None or ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    # For the courier.

    @property
    def idle(self) -> bool:
        """Whether a request may be sent on it."""
        up = self._transport is not None and not self._transport.is_closing()
        return up and self._http.our_state is self._http.their_state is h11.IDLE

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: h11.Request, body: bytes, feed: Feed | None, silence: float) -> tuple[int, bytes]:
        """(status, the body of a response that is no success). The body of one that is goes to `feed` as it comes.
        Raises BrokenConnection, also after `silence` seconds, and what `feed` raises; then the connection is closed."""
        assert self._transport is not None
        self._feed, self._refusal = feed, []
        ended = self._ended = self._loop.create_future()
        sent = [self._http.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
        self._transport.write(b"".join(filter(None, sent)))
        self._heard = self._loop.time()
        watch = _Watch(self._loop, silence, lambda: self._heard, self._silent)
        try:
            await ended
        except BaseException:
            self.close()
            raise
        finally:
            watch.cancel()
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:  # the server wants no further request on it
            self.close()
        return self._status, b"".join(self._refusal)

    def _silent(self) -> None:
        self._end(BrokenConnection("the server fell silent"))


class _Watch:
    """Calls `silent` once nothing has been `heard` for so many seconds: one timer, however often something is."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, heard: Callable[[], float], silent: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._heard, self._silent = loop, seconds, heard, silent
        self._timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        due = self._heard() + self._seconds
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._silent()

    def cancel(self) -> None:
        self._timer.cancel()


class HttpConnections:
    """To the server at `base_url`, for one event loop. `headers` and `params` go with every request; no proxy
    is looked for in the environment. Raises ValueError for what is no URL."""

    def __init__(self, base_url: str, headers: Mapping[str, str], params: Mapping[str, Any]) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{base_url!r} is no URL of an HTTP server")
        self._tls = url.scheme == "https"
        self._host = url.hostname.encode("idna").decode()
        self._port = url.port or (443 if self._tls else 80)
        self._path = url.path
        self._query = f"?{urlencode(params, doseq=True)}" if params else ""
        place = f"[{self._host}]" if ":" in self._host else self._host
        sent = {"host": f"{place}:{url.port}" if url.port else place, "content-type": "application/json"}
        if url.username is not None:
            words = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
            sent["authorization"] = f"Basic {base64.b64encode(words).decode()}"
        self._headers = sent | {name.lower(): value for name, value in headers.items()}
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        feed: Feed | None = None,
        silence: float = 60.0,
    ) -> tuple[int, bytes]:
        """As `_Connection.exchange`, of `path` under the base URL. OSError if there is no connection."""
        more = {name.lower(): value for name, value in headers.items()}
        sent = {**self._headers, **more, "content-length": str(len(body))}
        request = h11.Request(method=method, target=f"{self._path}{path}{self._query}", headers=list(sent.items()))
        connection = await self._connection()
        self._open.add(connection)
        try:
            answer = await connection.exchange(request, body, feed, silence)
        finally:
            self._open.discard(connection)
        if connection.idle and len(self._idle) < KEPT:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.idle:
                return connection
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            tls = certificates() if self._tls else None
            _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=tls)
        return connection

    def close(self) -> None:
        for connection in (*self._idle, *self._open):
            connection.close()
        self._idle.clear()
