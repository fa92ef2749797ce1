"""When each prefix will be read next, by the calls of all open programs of a tenant that have not started yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

#: (session id, output): names of two sessions do not meet.
Caller = tuple[str, str]


@dataclass(slots=True, eq=False)
class _Readers:
    """A heap by latest start; who has started or left meanwhile is dropped as it surfaces, or when it is the most."""

    heap: list[tuple[float, int, Caller]] = field(default_factory=list)
    live: int = 0


class NextUses:
    """Owned by the event loop. A call costs O(log calls) for each of its prefixes, however many share them."""

    def __init__(self) -> None:
        self._to_come: dict[Caller, tuple[int, ...]] = {}
        self._by_prefix: dict[int, _Readers] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        """Prefixes that somebody will read."""
        return len(self._by_prefix)

    def join(self, call: Caller, prefixes: Sequence[int], latest: float) -> None:
        """The call will read `prefixes` (names, see `boundaries`), at about its latest start (absolute seconds)."""
        self._to_come[call] = names = tuple(dict.fromkeys(prefixes))
        entry = latest, next(self._serial), call
        for name in names:
            readers = self._by_prefix.setdefault(name, _Readers())
            heappush(readers.heap, entry)
            readers.live += 1

    def leave(self, call: Caller) -> None:
        """It starts, or never will: what it reads is no next use any more."""
        for name in self._to_come.pop(call, ()):
            readers = self._by_prefix[name]
            readers.live -= 1
            if not readers.live:
                del self._by_prefix[name]
            elif len(readers.heap) > 2 * readers.live + 64:
                readers.heap = [entry for entry in readers.heap if entry[2] in self._to_come]
                heapify(readers.heap)

    def of(self, prefixes: Sequence[int]) -> Iterator[float | None]:
        """The earliest latest start among those to come that read it, for each of `prefixes`; None: there are none."""
        for name in prefixes:
            readers = self._by_prefix.get(name)
            if readers is None:
                yield None
                continue
            while readers.heap[0][2] not in self._to_come:
                heappop(readers.heap)
            yield readers.heap[0][0]
