"""Single flight: equal deterministic calls that are under way at the same time run once, for all who wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.scheduling import Task
from semantic_parrot.core.usage import Fare, Meter, Payer

Items = AsyncGenerator[Delta | Done, None]

#: (tenant, content key): equal keys are the same request of the same tenant.
Key = tuple[str, str]


@dataclass(eq=False)
class _Flight:
    """One execution: what it has said so far, and how many listen. `error` or a Done at the end of `items` ends it."""

    task: Task
    items: list[Delta | Done] = field(default_factory=list)
    error: Exception | None = None
    ended: bool = False
    readers: int = 0
    fare: Fare = field(default_factory=Fare)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pump: asyncio.Task[None] | None = None

    def tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Flights:
    """Owned by the event loop. `promote` is told when a latency call joins the flight of a task that is none."""

    def __init__(self, promote: Callable[[Task], None]) -> None:
        self._open: dict[Key, _Flight] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._promote = promote

    async def join(
        self,
        key: Key,
        task: Task,
        start: Callable[[Task, Payer], Items],
        meter: Meter,
        boarded: Callable[[], None] = lambda: None,
    ) -> Items:
        """The answer to `key`: of the flight under way, which `boarded` is told, or else of the one that `start(task,
        payer)` begins.

        Whoever joins late hears what was said so far at once. A reader that leaves takes nothing from the others; the
        last one to leave ends the flight. `meter` is billed for it, or told what it shares.
        """
        flight = self._open.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._open[key] = _Flight(task)
            flight.pump = asyncio.create_task(self._drive(key, flight, start(task, flight.fare)))
            self._pumps.add(flight.pump)
            flight.pump.add_done_callback(self._pumps.discard)
        else:
            boarded()
            if task.objective == "latency":
                self._promote(flight.task)
        flight.readers += 1
        flight.fare.board(meter)
        heard = 0
        try:
            while True:
                while heard < len(flight.items):
                    heard += 1
                    yield _shared(flight.items[heard - 1]) if joined else flight.items[heard - 1]
                if flight.error is not None:
                    raise flight.error
                if flight.ended:
                    return
                await flight.changed.wait()
        finally:
            flight.readers -= 1
            flight.fare.leave(meter)
            if not flight.readers and not flight.ended:
                self._land(key, flight)
                assert flight.pump is not None
                flight.pump.cancel()

    def task(self, key: Key) -> Task | None:
        """Of the flight under way that answers `key`."""
        return self._open[key].task if key in self._open else None

    async def close(self) -> None:
        """Wait for the flights that nobody listens to any more."""
        while self._pumps:
            await asyncio.wait(tuple(self._pumps))

    async def _drive(self, key: Key, flight: _Flight, items: Items) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    flight.items.append(item)
                    if isinstance(item, Done):
                        self._land(key, flight)  # an equal call from here on is a new one
                    flight.tell()
        except Exception as error:
            flight.error = error
        finally:
            flight.ended = True
            self._land(key, flight)
            flight.tell()

    def _land(self, key: Key, flight: _Flight) -> None:
        with suppress(KeyError):
            if self._open[key] is flight:
                del self._open[key]


def _shared(item: Delta | Done) -> Delta | Done:
    if isinstance(item, Done) and item.placed is not None:
        return replace(item, placed=replace(item.placed, shared=True))
    return item
