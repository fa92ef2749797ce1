"""The log of a run: what happened, in order, for any number of readers who come when they like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from semantic_parrot.core.events import Event, RunFinished

#: Makes an event durable: (its number, the event, what is to be called then). It does so in the order of its calls.
Keeper = Callable[[int, Event, Callable[[], None]], None]

#: Events that are handed on at once, so that a reader who comes late holds nobody up.
TOGETHER = 64


class Log:
    """Events are numbered from 1; `run.finished` is the last. Owned by the event loop. `told`: by an earlier server."""

    def __init__(self, told: Sequence[Event] = ()) -> None:
        self._events: list[Event] = list(told)
        self._told = len(self._events)
        self._last = len(self._events)
        self._keeper: Keeper | None = None
        self._closed = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """The number of the newest event that may be read."""
        return len(self._events)

    @property
    def complete(self) -> bool:
        return bool(self._events) and isinstance(self._events[-1], RunFinished)

    @property
    def settled(self) -> bool:
        """Whether all that was told may be read."""
        return self._last == len(self._events)

    def append(self, event: Event) -> None:
        self._last += 1
        if self._keeper is None:
            self._show(event)
        else:
            self._keeper(self._last, event, partial(self._show, event))

    def keep(self, keeper: Keeper) -> None:
        """From now on, and from what no earlier server has told, nobody reads what is not durable. To be called
        before anybody could."""
        fresh = self._events[self._told :]
        del self._events[self._told :]
        self._keeper, self._last = keeper, self._told
        for event in fresh:
            self.append(event)

    def drop(self) -> None:
        """Nothing more is made durable, and nobody reads."""
        self._keeper = None
        self.close()

    def close(self) -> None:
        """Whoever reads has read all that will come in this server."""
        self._closed = True
        self._tell()

    def _show(self, event: Event) -> None:
        self._events.append(event)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """(number, event): those past `after`, then each as it happens, to the last."""
        async for batch in self.read_together(after):
            for numbered in batch:
                yield numbered

    async def read_together(self, after: int = 0) -> AsyncIterator[list[tuple[int, Event]]]:
        """The same, up to TOGETHER that are there at a time; none waits for the next."""
        while True:
            if after < len(self._events):
                batch = list(enumerate(self._events[after : after + TOGETHER], after + 1))
                after += len(batch)
                yield batch
            elif self.complete or self._closed:
                return
            else:
                await self._changed.wait()

    async def wait(self) -> None:
        """Until the log is complete, or closed."""
        while not (self.complete or self._closed):
            await self._changed.wait()

    async def settle(self) -> None:
        """Until what has been told by now may be read, or the log is closed."""
        last = self._last
        while len(self._events) < last and not self._closed:
            await self._changed.wait()
