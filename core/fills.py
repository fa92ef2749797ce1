"""Which engine fills a prompt ahead: where the call will probably go, so that it goes there."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from semantic_parrot.core.analysis import Skeleton
from semantic_parrot.core.engines.protocol import Engine, Keep
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.salts import Salts, mark, own
from semantic_parrot.core.scheduler import Scheduler
from semantic_parrot.core.scheduling import Task

#: Prompts that one engine is asked to fill at the same time; those that wait for more get none.
MOST = 32

#: A call: its session's id and its output.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is known of a prompt: `body` is the request with UNKNOWN for the rest, `chars` come before that, `names` are
    the prefixes among them. `producer` makes what comes next. `keep`: how long it is worth keeping."""

    body: Mapping[str, Any]
    skeleton: Skeleton
    chars: int
    names: tuple[int, ...]
    producer: Key
    keep: tuple[Keep, ...] = ()
    tenant: str = ""


@dataclass(slots=True, eq=False)
class _Fill:
    scheduler: Scheduler
    index: int
    chars: int

    @property
    def engine(self) -> Engine:
        return self.scheduler.engines[self.index]


class Fills:
    """The prompts that engines fill ahead, and where calls run. Owned by the event loop; `scheduler` of a model,
    `salts` of its tenants."""

    def __init__(self, scheduler: Callable[[str], Scheduler], salts: Salts | None = None) -> None:
        self._scheduler = scheduler
        self._salts = salts or Salts()
        self._fills: dict[Key, _Fill] = {}
        self._counts: Counter[Engine] = Counter()
        self._unable: defaultdict[Scheduler, set[int]] = defaultdict(set)  # engines that fill nothing ahead
        self._running: dict[Key, int] = {}

    def fill(self, key: Key, beginning: Beginning) -> bool:
        """Fill the beginning of call `key`, on the engine chosen at its first one. False: nothing is to be done, or
        there is nobody to do it."""
        scheduler = self._scheduler(beginning.body["model"])
        fill = self._fills.get(key)
        if fill is not None and not fill.engine.healthy:  # what it had is lost
            self.drop(key)
            fill = None
        with suppress(ParrotError):  # the call itself will say so
            request = parse_request(beginning.body, allow_empty=True)
            if fill is None:
                index = self._choose(scheduler, beginning)
                if index is None:
                    return False
                fill = self._fills[key] = _Fill(scheduler, index, 0)
                self._counts[fill.engine] += 1
            fill.chars = beginning.chars
            fill.engine.prefill(key, request, beginning.keep, self._salts.of(beginning.tenant))
            residency = scheduler.decider.fleet.residency
            residency.hold(fill.index, own(beginning.names, beginning.tenant), time.monotonic())
            return True
        return False

    def drop(self, key: Key) -> None:
        """The call starts, or never will: what is filled by now stays as long as there is room."""
        fill = self._fills.pop(key, None)
        if fill is not None:
            self._counts[fill.engine] -= 1
            fill.engine.prefill(key, None)

    def filled(self, key: Key) -> tuple[int, int] | None:
        """(engine, characters of the prompt of call `key` that it was asked to fill)."""
        fill = self._fills.get(key)
        return None if fill is None else (fill.index, fill.chars)

    def started(self, call: Key, engine: int) -> None:
        self._running[call] = engine

    def ended(self, call: Key) -> None:
        self._running.pop(call, None)

    def _choose(self, scheduler: Scheduler, beginning: Beginning) -> int | None:
        """Where the call would go now; of equal engines its producer's. None: where it goes has the prefix already, or
        no engine can do more."""
        fleet, estimates = scheduler.decider.fleet, scheduler.decider.estimates
        near = self._running.get(beginning.producer, -1)
        per, chars = estimates.per_character, max(beginning.chars, beginning.skeleton.constant)
        names = own(beginning.names, beginning.tenant)
        task = Task(
            prompt=chars * per,
            output=estimates.output(beginning.skeleton, mark(beginning.tenant)),
            prefixes=names,
            held=tuple((name >> 32) * per for name in beginning.names),
        )
        without = set(self._unable[scheduler])
        for full in (False, True):
            while (best := fleet.best(task, 0, 0.0, without=without, near=near, full=full)) is not None:
                index = best[0].index
                engine = scheduler.engines[index]
                if "prefill-ahead" not in engine.abilities:
                    self._unable[scheduler].add(index)
                elif self._counts[engine] < MOST:
                    held = fleet.residency.names(index)
                    has = any(name in held for name in names if name >> 32 == beginning.chars)
                    return None if has else index
                without.add(index)
        return None
