"""/dashboard/login and /dashboard/logout, where keys are asked for."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from semantic_parrot.core.errors import BodyTooLarge, InvalidKey
from semantic_parrot.server.dashboard.own import HEADERS, own_page_only
from semantic_parrot.server.dashboard.view import View
from semantic_parrot.server.dashboard.visits import Visits, give
from semantic_parrot.server.route import Route

#: Bytes of the form.
FORM = 4096


def routes(view: View, visits: Visits) -> APIRouter:
    router = APIRouter(route_class=Route, include_in_schema=False)

    def form(wrong: str, status: int) -> Response:
        return HTMLResponse(view.page("login", wrong=wrong, live="", who=""), status, HEADERS)

    @router.get("/dashboard/login")
    async def ask(_: Request) -> Response:
        return form("", 200)

    @router.post("/dashboard/login")
    async def login(request: Request) -> Response:
        own_page_only(request)
        try:
            cookie = visits.begin(await _key(request))
        except InvalidKey as error:
            return form(error.message, 401)
        response = RedirectResponse("/dashboard", 303, HEADERS)
        give(response, cookie, request.scope)
        return response

    @router.post("/dashboard/logout")
    async def logout(request: Request) -> Response:
        own_page_only(request)
        visits.end(request.scope)
        response = RedirectResponse("/dashboard/login", 303, HEADERS)
        give(response, "", request.scope)
        return response

    return router


async def _key(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM:
            raise BodyTooLarge(f"the form is larger than {FORM} bytes", where="body")
    return parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
