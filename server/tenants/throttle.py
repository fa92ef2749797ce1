"""Requests that make work are let in as the limits allow, before anything of them is read: a refusal costs next to
nothing."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from semantic_parrot.core.errors import ParrotError
from semantic_parrot.server.errors import refusal
from semantic_parrot.server.tenants.identity import tenant_of
from semantic_parrot.server.tenants.limits import Limits

WORK = re.compile("/v1/(runs|chat/completions|completions|responses|sessions(/[^/]+/calls)?)")


class Throttle:
    """Refuses with 429. A request is open until its answer has been sent, or its client has gone."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not WORK.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        tenant = tenant_of(Request(scope))
        # What a key stands for may be there already, and costs nothing then; else the runtime asks what is left.
        keyed = scope["path"] == "/v1/runs" and "idempotency-key" in Headers(scope=scope)
        try:
            self._limits.enter(tenant, quota=not keyed)
        except ParrotError as error:
            await refusal(error, scope)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._limits.leave(tenant)
