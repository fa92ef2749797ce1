from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import pytest
from live import LiveServer, LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import UNDIRECTED, Delta, Directions, Done, Usage
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.service import Settings


class Watched(ScriptedEngine):
    """Tells the test when a request has come to the engine, and when one has left it; fails and speaks on demand."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        super().__init__(gate=gate)
        self.came, self.left = threading.Semaphore(0), threading.Semaphore(0)
        self._fails_after: int | None = None
        self._says: str | None = None

    def fail(self, *, after: int) -> None:
        """From now on every answer breaks off after so many words."""
        self._fails_after = after

    def say(self, text: str) -> None:
        """From now on every answer is `text`, in one piece."""
        self._says = text

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        self.came.release()
        try:
            if self._says is not None:
                yield Delta(self._says)
                yield Done(self._says, "stop", Usage(1, 0, 1))
                return
            if self._fails_after == 0:
                raise EngineFailed("a scripted failure")
            async with aclosing(super().generate(request, directions)) as items:
                count = 0
                async for item in items:
                    yield item
                    count += 1
                    if count == self._fails_after:
                        raise EngineFailed("a scripted failure")
        finally:
            self.left.release()


@dataclass
class Site:
    """A served engine. With a gate, its answers stop after their first word until `open_gate`."""

    server: LocalServer
    engine: Watched
    http: httpx.Client
    gate: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        """Forget what was before: `seen` and `counted` start here."""
        self.engine.seen.clear()
        self._before = self.server.metrics()

    def counted(self, name: str) -> float:
        """How much a metric has grown."""
        return self.server.metrics()[name] - self._before.get(name, 0)

    def open_gate(self) -> None:
        assert self.gate is not None
        self.server.call(self.gate.set)


def _site(gate: asyncio.Event | None) -> Iterator[Site]:
    engine = Watched(gate)
    settings = Settings(max_body=1_000_000, heartbeat=0.05)
    with (
        LocalServer(Runtime([engine], grace=0.2), settings) as server,
        httpx.Client(base_url=server.base, timeout=20) as http,
    ):
        site = Site(server, engine, http, gate)
        yield site
        if gate is not None:
            site.open_gate()


@pytest.fixture(scope="session")
def _shared() -> Iterator[Site]:
    yield from _site(None)


@pytest.fixture
def site(_shared: Site) -> Site:
    """One server for all tests that only ask."""
    _shared.mark()
    return _shared


@pytest.fixture
def gated() -> Iterator[Site]:
    yield from _site(asyncio.Event())


@pytest.fixture(scope="session")
def tool_server(tmp_path_factory) -> Iterator[LiveServer]:
    """A real model whose template has tools, for tests that send it their own calls."""
    from tiny_models import make_model

    model = make_model("llama", tmp_path_factory.mktemp("models") / "tiny", tools="hermes")
    with LiveServer("--model", str(model), "--deterministic") as server:
        yield server
