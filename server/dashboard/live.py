"""Parts of a page that follow what they show: each is sent again when it is not as it was sent last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from semantic_parrot.core.observer import Observer
from semantic_parrot.core.run import Run
from semantic_parrot.server.dashboard.view import Parts
from semantic_parrot.server.streams import data

#: Seconds between two looks at what changes all the time.
PAUSE = 0.4


class Changes(Observer):
    """Tells whoever looks at a tenant's list of runs that it has changed."""

    def __init__(self) -> None:
        self._watching: dict[asyncio.Event, str] = {}

    def run_began(self, run: Run) -> None:
        self._tell(run.tenant)

    def run_ended(self, run: Run) -> None:
        self._tell(run.tenant)

    def _tell(self, tenant: str) -> None:
        for watching, whose in self._watching.items():
            if whose == tenant:
                watching.set()

    @contextmanager
    def watch(self, tenant: str) -> Iterator[asyncio.Event]:
        watching = asyncio.Event()
        self._watching[watching] = tenant
        try:
            yield watching
        finally:
            del self._watching[watching]


async def follow(
    look: Callable[[], Awaitable[Parts]],
    watching: AbstractContextManager[asyncio.Event],
    over: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[str, None]:
    """SSE blocks with the parts that `look` finds to be new, each time that the event of `watching` is set; once it is
    `over`, an event `end`."""
    sent: Parts = {}
    with watching as changed:
        while True:
            changed.clear()
            last = over()
            parts = await look()
            new = {name: html for name, html in parts.items() if sent.get(name) != html}
            sent = parts
            if new:
                yield f"data: {data(new)}\n\n"
            if last:
                yield "event: end\ndata: {}\n\n"
                return
            await changed.wait()
            await asyncio.sleep(PAUSE)  # what comes meanwhile goes with it


async def sample(look: Callable[[], Awaitable[Parts]], pause: float) -> AsyncGenerator[str, None]:
    """The same of what nobody announces, as long as somebody looks: every `pause` seconds."""
    sent: Parts = {}
    while True:
        parts = await look()
        if parts != sent:
            yield f"data: {data(parts)}\n\n"
        sent = parts
        await asyncio.sleep(pause)
