"""Without keys, whoever reaches the server may read all: so it answers under this machine's own names alone.

A web page of another site may send requests to a server on loopback, and read no answer. It may read them if its own
name leads to loopback by then (DNS rebinding): to the browser the server is that site. But the browser says the name.
"""

from __future__ import annotations

from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from semantic_parrot.core.errors import Forbidden
from semantic_parrot.server.errors import refusal

#: Headers that are remembered as good: most clients send the same.
KNOWN = 100


class OwnNames:
    """Refuses with 403 what comes under a name that may be another site's: one with a dot in it, that is no address and
    not below `localhost`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._good: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if host not in self._good:
                name = host.decode("latin-1")
                if not is_own(name):
                    why = "without API keys (--api-keys) the server answers as localhost and by address alone"
                    error = Forbidden(f"{name[:80]!r} is no name of this machine: {why}", where="Host")
                    await refusal(error, scope)(scope, receive, send)
                    return
                if len(self._good) < KNOWN:
                    self._good.add(host)
        await self._app(scope, receive, send)


def is_own(host: str) -> bool:
    """Of a Host header, with its port or without."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    name = name.rstrip(".").lower()
    if ("." not in name and ":" not in name) or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
