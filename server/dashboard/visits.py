"""Who is logged in to the dashboard: a browser that has posted a key has a cookie instead, for a while.

The cookie is of the dashboard's pages alone, no script can read it, and no other site's page can have it sent.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from semantic_parrot.core.errors import InvalidKey
from semantic_parrot.server.tenants.keys import Keyring, digest
from semantic_parrot.server.tenants.store import Key

COOKIE, PATH = "parrot_visit", "/dashboard"

#: Seconds that a visit lasts, and visits that are remembered.
LASTS, MOST = 12 * 3600, 1000


class Visits:
    """Of this process: a server that is started again asks for the key again."""

    def __init__(self, keyring: Keyring, clock: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._clock = clock
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()  # neither cookies nor keys: their hashes

    def begin(self, secret: str) -> str:
        """The cookie of a new visit, for whoever has the key `secret`. Raises InvalidKey, StoreError."""
        self._keyring.find(secret)
        cookie = secrets.token_urlsafe(32)
        self._open[_hash(cookie)] = digest(secret), self._clock() + LASTS
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        return cookie

    def find(self, scope: Scope) -> Key | None:
        """The key behind the request's cookie, if that opens anything still. Raises StoreError."""
        key_hash, until = self._open.get(_hash(cookie_of(scope)), ("", 0.0))
        if until <= self._clock():
            return None
        try:
            return self._keyring.known(key_hash)
        except InvalidKey:
            return None

    def end(self, scope: Scope) -> None:
        self._open.pop(_hash(cookie_of(scope)), None)


def cookie_of(scope: Scope) -> str:
    """ "" if there is none."""
    try:
        found = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def give(response: Response, cookie: str, scope: Scope) -> None:
    """`cookie` goes to the browser that sent the request of `scope`; "" takes it back."""
    encrypted = "https" in (scope["scheme"], Headers(scope=scope).get("x-forwarded-proto"))
    response.set_cookie(
        COOKIE, cookie, LASTS if cookie else 0, path=PATH, secure=encrypted, httponly=True, samesite="strict"
    )


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()
