"""The HTTP transport of a model's OpenAI client: answers come from the scope's plans where the request is the same.

A request is claimed only if the server executed exactly it; every other one goes out as usual.
"""

from __future__ import annotations

import asyncio
import json
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai

from semantic_parrot.adapters.answers import Answer, Failed, Finished
from semantic_parrot.adapters.endpoint import NO_KEY, Endpoint
from semantic_parrot.adapters.replay import AnswerLost, StreamReplay, to_json
from semantic_parrot.adapters.resume import Diverged, Rest, can_resume
from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.core.wire import content_key


def _client_module() -> Any:
    """The HTTP library of the installed OpenAI client: httpx, or httpx2 from its version 3 on; alike in all we use."""
    base = next(cls for cls in openai.DefaultHttpxClient.__mro__ if cls.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


if TYPE_CHECKING:
    import httpx as http
else:
    http = _client_module()

ROUTE = "/chat/completions"
LIMITS = http.Limits(max_connections=1000, max_keepalive_connections=100)


def _claim(endpoint: Endpoint, request: Any) -> tuple[Answer, Mapping[str, Any]] | None:
    """The planned answer to `request`, with its body; plans from here on if there is none yet."""
    scope = SCOPE.get()
    if scope is None or scope.closed or request.method != "POST" or not request.url.path.endswith(ROUTE):
        return None
    body = json.loads(request.content)
    key = content_key(body)
    answer = scope.claim(endpoint, key)
    site = SITE.get()
    if answer is None and site is not None:
        answer = site.replan(scope, body)
    scope.count(claimed=answer is not None)
    return None if answer is None else (answer, body)


def _patience(request: Any) -> float | None:
    """Seconds that the caller would wait for an ordinary response."""
    seconds = request.extensions.get("timeout", {}).get("read")
    return None if seconds is None else float(seconds)


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


class _Stream(http.SyncByteStream, http.AsyncByteStream):
    """The body of a replayed stream. If the answer is lost on the way, `again` makes the call as an ordinary one; if
    that can't give the same text, the body breaks off as a dead connection does."""

    def __init__(
        self, replay: StreamReplay, request: Any, body: Mapping[str, Any], again: Callable[[Any], Any]
    ) -> None:
        self._replay = replay
        self._request = request
        self._body = body
        self._again = again

    def _rest(self, error: AnswerLost) -> Rest:
        if not can_resume(self._body):
            raise self._broken(error)
        self._replay.done = True
        return Rest(error.text)

    def _broken(self, error: Exception) -> Exception:
        broken: Exception = http.RemoteProtocolError(str(error), request=self._request)
        return broken

    def _late(self) -> Exception:
        late: Exception = http.ReadTimeout("no more of the answer came in time", request=self._request)
        return late

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                if block := self._replay.advance():
                    yield block
                if self._replay.done:
                    return
                if not self._replay.answer.wait(self._replay.seen, _patience(self._request)):
                    raise self._late()
        except AnswerLost as error:
            rest = self._rest(error)
        with closing(self._again(self._request)) as response:
            try:
                for line in response.iter_lines():
                    if block := rest.feed(line):
                        yield block
            except Diverged as error:
                raise self._broken(error) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                if block := self._replay.advance():
                    yield block
                if self._replay.done:
                    return
                if not await self._replay.answer.wait_async(self._replay.seen, _patience(self._request)):
                    raise self._late()
        except AnswerLost as error:
            rest = self._rest(error)
        async with aclosing(await self._again(self._request)) as response:
            try:
                async for line in response.aiter_lines():
                    if block := rest.feed(line):
                        yield block
            except Diverged as error:
                raise self._broken(error) from None

    def close(self) -> None:
        if not self._replay.done:
            self._replay.answer.abandon()

    async def aclose(self) -> None:
        self.close()


class _Transport:
    """What the blocking and the asynchronous transport share."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def _prepare(self, request: Any, url: str) -> None:
        """Send no key where none is needed; aim at the embedded server."""
        if request.headers.get("authorization") == f"Bearer {NO_KEY}":
            del request.headers["authorization"]
        if self._endpoint.embedded is not None:
            target = http.URL(url)
            request.url = request.url.copy_with(scheme=target.scheme, host=target.host, port=target.port)
            request.headers["host"] = request.url.netloc.decode()

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
        self._pid = os.getpid()
        self._inner = http.HTTPTransport(limits=LIMITS)

    def handle_request(self, request: Any) -> Any:
        claimed = _claim(self._endpoint, request)
        if claimed is not None:
            answer, body = claimed
            if not answer.wait(self._first(body), _patience(request)):
                raise self._too_late(request)
            replay = self._streamed(answer, body)
            if replay is not None:
                stream = _Stream(replay, request, body, self._send)
                return http.Response(200, stream=stream, headers=STREAM_TYPE, request=request)
            response = _whole(answer, request)
            if response is not None:
                return response
        return self._send(request)

    def _send(self, request: Any) -> Any:
        """The ordinary way."""
        self._prepare(request, self._endpoint.url())
        if self._pid != os.getpid():
            self._pid, self._inner = os.getpid(), http.HTTPTransport(limits=LIMITS)
        return self._inner.handle_request(request)

    def close(self) -> None:
        if self._pid == os.getpid():
            self._inner.close()


class AsyncClaimingTransport(_Transport, http.AsyncBaseTransport):
    """For asynchronous clients. Connections belong to an event loop, and are closed with it.

    A model outlives event loops (each `asyncio.run` makes one), and a connection of a closed loop is of no use.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._inner: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None, None]]] = (
            weakref.WeakKeyDictionary()
        )

    async def handle_async_request(self, request: Any) -> Any:
        claimed = _claim(self._endpoint, request)
        if claimed is not None:
            answer, body = claimed
            if not await answer.wait_async(self._first(body), _patience(request)):
                raise self._too_late(request)
            replay = self._streamed(answer, body)
            if replay is not None:
                stream = _Stream(replay, request, body, self._send)
                return http.Response(200, stream=stream, headers=STREAM_TYPE, request=request)
            response = _whole(answer, request)
            if response is not None:
                return response
        return await self._send(request)

    async def _send(self, request: Any) -> Any:
        """The ordinary way."""
        embedded = self._endpoint.embedded is not None
        self._prepare(request, await asyncio.to_thread(self._endpoint.url) if embedded else "")
        return await (await self._of_this_loop()).handle_async_request(request)

    async def _of_this_loop(self) -> Any:
        loop = asyncio.get_running_loop()
        found = self._inner.get(loop)
        if found is None:
            inner = http.AsyncHTTPTransport(limits=LIMITS)
            # A loop that ends closes the generators that were started on it: the one hook there is.
            closer = _close_at_end(inner)
            await anext(closer)
            found = self._inner[loop] = (inner, closer)
        return found[0]

    async def aclose(self) -> None:
        found = self._inner.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[1].aclose()


async def _close_at_end(transport: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await transport.aclose()


class SyncClient(openai.DefaultHttpxClient):
    """Closes its connections when the model that it belongs to is gone."""

    def __del__(self) -> None:
        if not self.is_closed:
            self.close()


class AsyncClient(openai.DefaultAsyncHttpxClient):
    """Its connections are closed with the event loops that they belong to."""


def claiming_clients(endpoint: Endpoint) -> tuple[SyncClient, AsyncClient]:
    """HTTP clients for the OpenAI clients of a model on `endpoint`."""
    transports: tuple[Any, Any] = ClaimingTransport(endpoint), AsyncClaimingTransport(endpoint)
    return SyncClient(transport=transports[0]), AsyncClient(transport=transports[1])
