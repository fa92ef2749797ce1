"""No request gets further than this without a key, but for those that tell nothing."""

from __future__ import annotations

import base64
import binascii
import logging
import re

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from semantic_parrot.core.errors import Forbidden, InvalidKey, ParrotError, Unavailable
from semantic_parrot.server.dashboard.visits import Visits
from semantic_parrot.server.errors import refusal
from semantic_parrot.server.tenants.identity import OPEN, belongs
from semantic_parrot.server.tenants.keys import Keyring
from semantic_parrot.server.tenants.store import Key, StoreError

log = logging.getLogger(__name__)

#: About the whole server, so no tenant's.
OPERATORS = frozenset({"/metrics", "/reset_prefix_cache"})

#: For both.
SHARED = re.compile("/v1/engines|/dashboard(/.*)?")

#: What a browser may do of itself with the password that it remembers, on behalf of whatever page asks it to.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


#: Where a browser gets a cookie, which stands for its key on the dashboard's other pages.
LOGIN = "/dashboard/login"
DASHBOARD, LOGGING_IN = re.compile("/dashboard(/.*)?"), re.compile(f"{LOGIN}|/dashboard/static/.*")


class Gate:
    """Refuses with 401 and 403; what passes belongs to the tenant of its key (see `identity`)."""

    def __init__(self, app: ASGIApp, keyring: Keyring, visits: Visits) -> None:
        self._app = app
        self._keyring = keyring
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or LOGGING_IN.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            key = self._visitor(scope)
            if key is None:
                await RedirectResponse(LOGIN, 303)(scope, receive, send)
                return
            _check(key, scope["path"])
        except (ParrotError, StoreError) as error:
            if isinstance(error, StoreError):
                log.error("keys can't be read, and nobody is let in: %s", error)
                error = Unavailable("the server can't read its keys; its log says why")
            await refusal(error, scope)(scope, receive, send)
            return
        belongs(scope, key.tenant, operator=key.operator)
        await self._app(scope, receive, send)

    def _visitor(self, scope: Scope) -> Key | None:
        """The key of the request; None for a person who has yet to say it. Raises InvalidKey, StoreError."""
        headers = Headers(scope=scope)
        if "authorization" in headers or not DASHBOARD.fullmatch(scope["path"]):
            return self._keyring.find(_secret(scope))
        key = self._visits.find(scope)
        if key is None and "text/html" not in headers.get("accept", ""):
            raise InvalidKey(f"nobody is logged in, or no longer: see {LOGIN}")
        return key


def _check(key: Key, path: str) -> None:
    if key.operator != (path in OPERATORS) and not SHARED.fullmatch(path):
        whose = "a tenant's: this is for the operator" if path in OPERATORS else "the operator's, who is no tenant"
        raise Forbidden(f"{path}: the key is {whose}", where=path)


def _secret(scope: Scope) -> str:
    """The key of the request: a bearer's, as OpenAI's clients send it, or the password that a browser was given.

    Raises InvalidKey.
    """
    headers = Headers(scope=scope)
    kind, _, value = headers.get("authorization", "").partition(" ")
    match kind.lower():
        case "bearer" if value.strip():
            return value.strip()
        case "basic":
            _refuse_foreign(scope, headers)
            try:
                return base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                raise InvalidKey("the Authorization header is no valid Basic one") from None
    raise InvalidKey("an API key is required: Authorization: Bearer KEY")


def _refuse_foreign(scope: Scope, headers: Headers) -> None:
    """A browser sends its password with every request to this server, whichever page makes it. Raises InvalidKey for
    one that would change something and does not come from a page of ours."""
    if scope["method"] not in SAFE and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise InvalidKey("a page of another site sent this request, and may not use the password of yours")
