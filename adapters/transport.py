"""The HTTP transport of a model's OpenAI client: answers come from the scope's plans where the request is the same.

A request is claimed only if the server executed exactly it; every other one goes out as usual.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import openai

from semantic_parrot.adapters.answers import Answer, Failed, Finished
from semantic_parrot.adapters.carrying import heard, told
from semantic_parrot.adapters.certificates import certificates
from semantic_parrot.adapters.endpoint import NO_KEY, Endpoint
from semantic_parrot.adapters.openai_http import http
from semantic_parrot.adapters.replay import StreamReplay, to_json
from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.adapters.stream_body import StreamBody, patience
from semantic_parrot.adapters.tracing import trace_headers
from semantic_parrot.core.wire import content_key

#: And that of chat completions, which ends with it.
ROUTE = "/completions"
LIMITS = http.Limits(max_connections=1000, max_keepalive_connections=100)


def claim(endpoint: Endpoint, key: str, body: Mapping[str, Any]) -> Answer | None:
    """The planned answer to the request `body`, which `key` names; plans from here on if there is none yet."""
    scope = SCOPE.get()
    if scope is None or scope.closed:
        return None
    answer = scope.claim(endpoint, key)
    site = SITE.get()
    if answer is None and site is not None and not site.alone(scope):
        answer = site.replan(scope, body)
    scope.count(claimed=answer is not None)
    return answer


def hopeless() -> bool:
    """Whether there is no planned answer to the call that is being made, whatever it asks, and none to plan for: that
    is known without its request. It is a miss then."""
    scope, site = SCOPE.get(), SITE.get()
    if scope is None or site is None or scope.closed or not scope.empty or not site.alone(scope):
        return False
    scope.count(claimed=False)
    return True


@dataclass(slots=True, eq=False)
class Tried:
    """An adapter has looked for the answer to the request that is about to go out, and found `answer` or none; `late`:
    it has waited for it as long as anybody would."""

    answer: Answer | None
    late: bool = False
    used: bool = False


TRIED: ContextVar[Tried | None] = ContextVar("parrot_tried", default=None)


def _claim(endpoint: Endpoint, request: Any) -> tuple[Tried, Mapping[str, Any]] | None:
    """The planned answer to `request`, with its body."""
    scope = SCOPE.get()
    if scope is None or scope.closed or request.method != "POST" or not request.url.path.endswith(ROUTE):
        return None
    tried = TRIED.get()
    if tried is not None and not tried.used:  # the first attempt; later ones ask again
        tried.used = True
        if tried.answer is None:
            return None
        body = json.loads(request.content)
        return (tried, body) if content_key(body) == tried.answer.key else None
    body = json.loads(request.content)
    answer = claim(endpoint, content_key(body), body)
    return None if answer is None else (Tried(answer), body)


def _whole(answer: Answer, request: Any) -> Any:
    """The response of a settled answer; None if it was lost."""
    match answer.outcome:
        case Finished(response=response):
            return http.Response(200, content=to_json(response), headers=JSON_TYPE, request=request)
        case Failed(status=status, body=body):
            return http.Response(status, content=to_json(body), headers=JSON_TYPE, request=request)
    return None


JSON_TYPE = {"content-type": "application/json"}
STREAM_TYPE = {"content-type": "text/event-stream"}


class _Transport:
    """What the blocking and the asynchronous transport share."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def _prepare(self, request: Any, url: str) -> None:
        """Send no key where none is needed; aim at the embedded server; join the app's trace."""
        if request.headers.get("authorization") == f"Bearer {NO_KEY}":
            del request.headers["authorization"]
        if self._endpoint.embedded is not None:
            target = http.URL(url)
            request.url = request.url.copy_with(scheme=target.scheme, host=target.host, port=target.port)
            request.headers["host"] = request.url.netloc.decode()
        for name, value in trace_headers().items():
            request.headers.setdefault(name, value)

    def _connections(self) -> dict[str, Any]:
        tls = self._endpoint.base_url.startswith("https:")
        return {"limits": LIMITS, "verify": certificates() if tls else False, "trust_env": False}

    @staticmethod
    def _streamed(answer: Answer, body: Mapping[str, Any]) -> StreamReplay | None:
        """A replay, if there is something to replay already that is not a failure as a whole."""
        if not body.get("stream") or (answer.outcome is not None and not isinstance(answer.outcome, Finished)):
            return None
        return StreamReplay(answer, body)

    @staticmethod
    def _first(body: Mapping[str, Any]) -> int | None:
        """What to wait for before answering: the first delta of a stream, or the outcome."""
        return 0 if body.get("stream") else None

    @staticmethod
    def _too_late(request: Any) -> Exception:
        error: Exception = http.ReadTimeout("the planned call did not finish in time", request=request)
        return error


class ClaimingTransport(_Transport, http.BaseTransport):
    """For blocking clients. Connections belong to the process that opened them."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._inner: dict[int, Any] = {}

    def handle_request(self, request: Any) -> Any:
        claimed = _claim(self._endpoint, request)
        if claimed is not None:
            tried, body = claimed
            answer = tried.answer
            assert answer is not None
            if tried.late or not answer.wait(self._first(body), patience(request)):
                raise self._too_late(request)
            replay = self._streamed(answer, body)
            if replay is not None:
                stream = StreamBody(replay, request, body, self._send)
                return http.Response(200, stream=stream, headers=STREAM_TYPE, request=request)
            response = _whole(answer, request)
            if response is not None:
                return response
        return self._send(request)

    def _send(self, request: Any) -> Any:
        """The ordinary way."""
        self._prepare(request, self._endpoint.url())
        inner = self._inner.get(os.getpid())
        if inner is None:  # of two threads that get here together, one sees its transport dropped unused
            inner = self._inner.setdefault(os.getpid(), http.HTTPTransport(**self._connections()))
        sent = told(self._endpoint, request)
        return heard(self._endpoint, sent, inner.handle_request(sent))

    def close(self) -> None:
        inner = self._inner.pop(os.getpid(), None)
        if inner is not None:
            inner.close()


class AsyncClaimingTransport(_Transport, http.AsyncBaseTransport):
    """For asynchronous clients. Connections belong to an event loop, and are closed with it.

    A model outlives event loops (each `asyncio.run` makes one), and a connection of a closed loop is of no use.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._inner: dict[asyncio.AbstractEventLoop, _Connections] = {}

    async def handle_async_request(self, request: Any) -> Any:
        claimed = _claim(self._endpoint, request)
        if claimed is not None:
            tried, body = claimed
            answer = tried.answer
            assert answer is not None
            if tried.late or not await answer.wait_async(self._first(body), patience(request)):
                raise self._too_late(request)
            replay = self._streamed(answer, body)
            if replay is not None:
                stream = StreamBody(replay, request, body, self._send)
                return http.Response(200, stream=stream, headers=STREAM_TYPE, request=request)
            response = _whole(answer, request)
            if response is not None:
                return response
        return await self._send(request)

    async def _send(self, request: Any) -> Any:
        """The ordinary way."""
        embedded = self._endpoint.embedded is not None
        self._prepare(request, await asyncio.to_thread(self._endpoint.url) if embedded else "")
        sent = told(self._endpoint, request)
        return heard(self._endpoint, sent, await (await self._of_this_loop()).handle_async_request(sent))

    async def _of_this_loop(self) -> Any:
        loop = asyncio.get_running_loop()
        found = self._inner.get(loop)
        if found is None:
            for ended in [other for other in tuple(self._inner) if other.is_closed()]:
                if (past := self._inner.pop(ended, None)) is not None:
                    past.finalizer.detach()
            transport = http.AsyncHTTPTransport(**self._connections())
            # A loop that ends closes the generators that were started on it: the one hook there is.
            closer = _close_at_end(transport)
            await anext(closer)
            # A model is a cycle: were `closer` a part of it, the sockets might be finalized first.
            finalizer = weakref.finalize(self, _close_in, loop, closer)
            finalizer.atexit = False
            found = self._inner[loop] = _Connections(transport, closer, finalizer)
        return found.transport

    async def aclose(self) -> None:
        found = self._inner.pop(asyncio.get_running_loop(), None)
        if found is not None:
            found.finalizer.detach()
            await found.closer.aclose()


class _Connections(NamedTuple):
    """Of one event loop. `finalizer`: runs `closer` there when nobody has the transport that they belong to."""

    transport: Any
    closer: AsyncGenerator[None, None]
    finalizer: weakref.finalize[..., AsyncClaimingTransport]


def _close_in(loop: asyncio.AbstractEventLoop, closer: AsyncGenerator[None, None]) -> None:
    """From any thread, as garbage is collected in any."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and `closer` with it
        loop.call_soon_threadsafe(lambda: loop.create_task(_close(closer)))


async def _close(closer: AsyncGenerator[None, None]) -> None:
    await closer.aclose()


async def _close_at_end(transport: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await transport.aclose()


class SyncClient(openai.DefaultHttpxClient):
    """Closes its connections when the model that it belongs to is gone."""

    def __init__(self, transport: ClaimingTransport) -> None:
        super().__init__(transport=cast(Any, transport))
        self.release = transport.close  # connections, not the client: a later call opens new ones
        # Not `__del__`: a model is a cycle, of which the sockets may be finalized first.
        weakref.finalize(self, transport.close).atexit = False


class AsyncClient(openai.DefaultAsyncHttpxClient):
    """Its connections are closed with the event loops that they belong to."""

    def __init__(self, transport: AsyncClaimingTransport) -> None:
        super().__init__(transport=cast(Any, transport))
        self.release = transport.aclose


def claiming_clients(endpoint: Endpoint) -> tuple[SyncClient, AsyncClient]:
    """HTTP clients for the OpenAI clients of a model on `endpoint`."""
    return SyncClient(ClaimingTransport(endpoint)), AsyncClient(AsyncClaimingTransport(endpoint))
