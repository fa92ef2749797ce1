"""Clients of a Parrot server: programs, their events, and what a server tells about itself.

`ParrotClient` blocks, `AsyncParrotClient` awaits; otherwise they are the same. Server errors are raised as the class
of `core.errors` that the error body names; failures of the connection itself as httpx's own exceptions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ConfigDict

from semantic_parrot.adapters.certificates import certificates
from semantic_parrot.adapters.endpoint import DEFAULT_BASE_URL
from semantic_parrot.adapters.refusals import NotParrot, error_of, error_of_run
from semantic_parrot.adapters.sse import EventReader
from semantic_parrot.core.events import Event, Status
from semantic_parrot.core.program import Program

__all__ = ["DEFAULT_BASE_URL", "AsyncParrotClient", "NotParrot", "ParrotClient", "RunResult"]

#: Seconds. A stream carries heartbeats, so silence means that the connection is dead.
STREAM_SILENCE = 60.0


class RunResult(BaseModel):
    """A run as `POST /v1/runs` answers it. `outputs`: texts or JSON values; `errors` by variable; `calls` by call id:
    content key, response, timings."""

    model_config = ConfigDict(frozen=True)

    id: str
    status: Status
    outputs: dict[str, Any]
    errors: dict[str, dict[str, Any]]
    calls: dict[str, dict[str, Any]]


class _Settings:
    """Where the server is and how to speak to it: what both clients share."""

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {**({"Authorization": f"Bearer {api_key}"} if api_key else {}), **(headers or {})}
        self._params = dict(params or {})
        self._timeout = timeout

    def _options(self) -> dict[str, Any]:
        """Arguments of an httpx client. No proxy is looked for in the environment: that is for other servers."""
        tls = self.base_url.startswith("https:")
        return {
            "headers": self._headers,
            "params": self._params,
            "timeout": httpx.Timeout(self._timeout, connect=5.0),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
            "trust_env": False,
            "verify": certificates() if tls else False,
        }

    def _body(self, program: Program, stream: bool, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        body = program.model_copy(update={"stream": stream}).model_dump_json(exclude_defaults=True)
        return {"content": body, "headers": {"Content-Type": "application/json", **(headers or {})}}

    def _stream_timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self._timeout, connect=5.0, read=STREAM_SILENCE)

    def _cancel(self, run_id: str, unclaimed: Collection[str]) -> dict[str, Any]:
        return {
            "method": "DELETE",
            "url": f"{self.base_url}/runs/{run_id}",
            "json": {"unclaimed": list(unclaimed)},
        }

    def _root(self) -> str:
        return self.base_url.removesuffix("/v1")


def _body(response: httpx.Response) -> tuple[int, str, bytes]:
    return response.status_code, str(response.request.url), response.content


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise error_of(*_body(response))
    return response


def _run_result(response: httpx.Response) -> RunResult:
    if response.is_error:
        raise error_of_run(*_body(response))
    return RunResult.model_validate(response.json())


def _model_ids(response: httpx.Response) -> list[str]:
    return [model["id"] for model in _checked(response).json()["data"]]


class ParrotClient(_Settings):
    """Blocking. Safe to share between threads; a context manager, or `close` it."""

    def __init__(self, base_url: str = DEFAULT_BASE_URL, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._http = httpx.Client(**self._options())

    def run(self, program: Program) -> RunResult:
        """Execute `program` and wait for all of it."""
        return _run_result(self._http.post(f"{self.base_url}/runs", **self._body(program, stream=False)))

    def stream(self, program: Program, headers: Mapping[str, str] | None = None) -> Generator[Event, None, None]:
        """Execute `program`: its events as they happen. Leaving the iterator early ends a prefetch run. `headers`: of
        this request, beside the client's own."""
        body = self._body(program, True, headers)
        with self._http.stream("POST", f"{self.base_url}/runs", timeout=self._stream_timeout(), **body) as response:
            if response.is_error:
                response.read()
                raise error_of_run(*_body(response))
            reader = EventReader()
            for piece in response.iter_bytes():
                yield from reader.feed(piece)

    def cancel(self, run_id: str, unclaimed: Collection[str] = ()) -> None:
        """End a run. `unclaimed`: calls whose results nobody used, for the server's count of wasted tokens."""
        _checked(self._http.request(**self._cancel(run_id, unclaimed)))

    def models(self) -> list[str]:
        """Every name that a request may use for a model."""
        return _model_ids(self._http.get(f"{self.base_url}/models"))

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return _checked(self._http.get(f"{self._root()}/metrics")).text

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncParrotClient(_Settings):
    """For one event loop. An async context manager, or `aclose` it."""

    def __init__(self, base_url: str = DEFAULT_BASE_URL, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._http = httpx.AsyncClient(**self._options())

    async def run(self, program: Program) -> RunResult:
        """Execute `program` and wait for all of it."""
        return _run_result(await self._http.post(f"{self.base_url}/runs", **self._body(program, stream=False)))

    async def stream(self, program: Program, headers: Mapping[str, str] | None = None) -> AsyncGenerator[Event, None]:
        """Execute `program`: its events as they happen. Leaving the iterator early ends a prefetch run. `headers`: of
        this request, beside the client's own."""
        body = self._body(program, True, headers)
        url = f"{self.base_url}/runs"
        async with self._http.stream("POST", url, timeout=self._stream_timeout(), **body) as response:
            if response.is_error:
                await response.aread()
                raise error_of_run(*_body(response))
            reader = EventReader()
            async for piece in response.aiter_bytes():
                for event in reader.feed(piece):
                    yield event

    async def cancel(self, run_id: str, unclaimed: Collection[str] = ()) -> None:
        """End a run. `unclaimed`: calls whose results nobody used, for the server's count of wasted tokens."""
        _checked(await self._http.request(**self._cancel(run_id, unclaimed)))

    async def models(self) -> list[str]:
        """Every name that a request may use for a model."""
        return _model_ids(await self._http.get(f"{self.base_url}/models"))

    async def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return _checked(await self._http.get(f"{self._root()}/metrics")).text

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
