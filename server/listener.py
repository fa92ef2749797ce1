"""The listening side: a socket that knows its port early, and uvicorn made to start, fail and end as we need."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from semantic_parrot.core.runtime import Runtime


class StartError(Exception):
    """The server can't start. The message is one line for the user."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port but takes no connection yet: no client waits on a model that is still loading."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it. Without it a second small write waits 40 ms for the client's late ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise cannot_listen(host, port, error) from None
    return sock


def cannot_listen(host: str, port: int, error: OSError) -> StartError:
    return StartError(f"cannot listen on {host} port {port}: {error.strerror or error}")


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Server(uvicorn.Server):
    """uvicorn, told when it is up, without its signals, and ending open requests before it waits for them."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime, up: Callable[[], None]) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._up = up

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again once it has shut down, so that a clean end looks like a crash.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up()

    async def drain(self, seconds: float) -> None:
        """Take no new work, until what clients wait for is done, or `seconds` are over."""
        self._runtime.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if requests := tuple(self.server_state.tasks):
                    await asyncio.wait(requests)
                for run in self._runtime.runs:
                    await run.wait()  # one may have been left for a moment by its reader

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # Cancelled runs and closed engines give every open request its end; only then is there nothing to wait for.
        closing = asyncio.create_task(self._runtime.close())
        await super().shutdown(sockets)
        await closing
