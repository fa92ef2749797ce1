"""When each prefix will be read next, by the calls of all open programs of a tenant that have not started yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

#: (session id, output): names of two sessions do not meet.
Caller = tuple[str, str]


#: (latest start, serial, call)
Entry = tuple[float, int, Caller]


@dataclass(slots=True, eq=False)
class _Readers:
    """A heap by latest start; who has started or left meanwhile is dropped as it surfaces, or when it is the most."""

    heap: list[Entry]
    live: int = 1


class NextUses:
    """A prefix that only one call will read, as most are, is one entry. Owned by the event loop; a call costs
    O(log calls) for each of its prefixes, however many share them."""

    def __init__(self) -> None:
        self._to_come: dict[Caller, tuple[Entry, tuple[int, ...]]] = {}
        self._by_prefix: dict[int, Entry | _Readers] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        """Prefixes that somebody will read."""
        return len(self._by_prefix)

    def join(self, call: Caller, prefixes: Sequence[int], latest: float) -> None:
        """The call will read `prefixes` (names, see `boundaries`), at about its latest start (absolute seconds)."""
        entry = latest, next(self._serial), call
        names = tuple(prefixes)
        if len(set(names)) < len(names):
            names = tuple(dict.fromkeys(names))
        self._to_come[call] = entry, names
        for name in names:
            there = self._by_prefix.setdefault(name, entry)
            if there is entry:
                continue
            if isinstance(there, tuple):
                there = self._by_prefix[name] = _Readers([there])
            heappush(there.heap, entry)
            there.live += 1

    def leave(self, call: Caller) -> None:
        """It starts, or never will: what it reads is no next use any more."""
        _, names = self._to_come.pop(call, (None, ()))
        for name in names:
            there = self._by_prefix[name]
            if isinstance(there, tuple) or there.live == 1:
                del self._by_prefix[name]
                continue
            there.live -= 1
            if len(there.heap) > 2 * there.live + 64:
                there.heap = [entry for entry in there.heap if self._is_to_come(entry)]
                heapify(there.heap)

    def of(self, prefixes: Sequence[int]) -> Iterator[float | None]:
        """The earliest latest start among those to come that read it, for each of `prefixes`; None: there are none."""
        for name in prefixes:
            there = self._by_prefix.get(name)
            if there is None or isinstance(there, tuple):
                yield there and there[0]
                continue
            while not self._is_to_come(there.heap[0]):
                heappop(there.heap)
            yield there.heap[0][0]

    def _is_to_come(self, entry: Entry) -> bool:
        """Not so of one whose call has left, though it may have joined again since."""
        return self._to_come.get(entry[2], (None,))[0] is entry
