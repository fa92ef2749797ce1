"""Every failure leaves as a status and an OpenAI error body: never a bare 500, never plain text."""

from __future__ import annotations

import asyncio
from math import ceil

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semantic_parrot.core.errors import BodyTooLarge, EngineFailed, InternalError, ParrotError, RequestTimeout

#: Bytes of a body that was refused and is read for the sake of the connection, which goes on then.
READ_ON = 256 * 1024


class QuietEnd:
    """Gives an end to a request that is cancelled because it outlives the shutdown.

    Only a server that ends cancels requests; uvicorn would log each with a traceback and send plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, tracked)
        except asyncio.CancelledError:
            if started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await error_response(EngineFailed("the server is shutting down"))(scope, receive, send)


def error_response(error: ParrotError) -> Response:
    headers = _headers(error)
    if isinstance(error, BodyTooLarge | RequestTimeout):  # the rest of its body is still to come
        headers["Connection"] = "close"
    return JSONResponse(error.body(), error.status, headers)


def refusal(error: ParrotError, scope: Scope) -> Response:
    """The answer to a request of which nothing was read."""
    headers, response = Headers(scope=scope), error_response(error)
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isdecimal() and int(length) <= READ_ON):
        response.headers["Connection"] = "close"
    return response


def _headers(error: ParrotError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retryable or error.retry_after is not None:
        wait = 1.0 if error.retry_after is None else max(error.retry_after, 0.001)
        headers["Retry-After"] = str(ceil(wait))
        headers["Retry-After-Ms"] = str(ceil(wait * 1e3))  # which OpenAI's clients prefer
    if not error.retryable and (error.status >= 500 or error.status == 429):
        headers["X-Should-Retry"] = (
            "false"  # OpenAI's clients repeat a 429 and a 5xx by themselves unless they are told
        )
    if error.status == 401:
        # A browser asks for a password, which is the key, where it is told this.
        headers["WWW-Authenticate"] = 'Bearer realm="Parrot", Basic realm="Parrot: the password is an API key"'
    return headers


def install(app: Starlette) -> None:
    """Give `app` the handlers."""
    app.add_exception_handler(ParrotError, _parrot)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)


async def _parrot(_: Request, error: Exception) -> Response:
    assert isinstance(error, ParrotError)
    return error_response(error)


async def _http(request: Request, error: Exception) -> Response:
    """What the router refuses by itself."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    messages = {404: ("not_found", f"no route {where}"), 405: ("method_not_allowed", f"{where}: method not allowed")}
    code, message = messages.get(error.status_code, ("invalid_request", f"{where}: {error.detail}"))
    body = {"message": message, "type": "invalid_request_error", "param": request.url.path, "code": code}
    return JSONResponse({"error": body}, error.status_code, dict(error.headers or {}))


async def _gone(_: Request, __: Exception) -> Response:
    """Nobody reads this: the client hung up."""
    return Response(status_code=499)


async def _bug(request: Request, _: Exception) -> Response:
    """Starlette raises the error again: uvicorn logs it with its traceback, and closes the connection."""
    error = InternalError("a bug in the server; its log says more", where=request.url.path)
    return JSONResponse(error.body(), error.status, {"Connection": "close"})
