"""The log of a run: what happened, in order, for any number of readers who come when they like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from semantic_parrot.core.events import Event, RunFinished


class Log:
    """Events are numbered from 1; `run.finished` is the last. Owned by the event loop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def complete(self) -> bool:
        return bool(self._events) and isinstance(self._events[-1], RunFinished)

    def append(self, event: Event) -> None:
        self._events.append(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """(number, event): those past `after`, then each as it happens, to the last."""
        while True:
            while after < len(self._events):
                after += 1
                yield after, self._events[after - 1]
            if self.complete:
                return
            await self._changed.wait()

    async def wait(self) -> None:
        """Until the log is complete."""
        while not self.complete:
            await self._changed.wait()
