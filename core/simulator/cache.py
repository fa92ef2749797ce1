"""The prefixes that a modelled engine holds."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

#: In order of eviction: what nobody will read any more; what somebody might; what an open program will; what runs.
DONE, RECENT, NEEDED, LIVE = range(4)

Names = tuple[int, ...]
Ends = tuple[float, ...]


@dataclass(slots=True, eq=False)
class _Entry:
    """`tokens` past the prefix before it. `owner`: the only program that used it; None for several. `held`: by so many
    sequences that run, where memory is bounded."""

    name: int
    tokens: float
    owner: int | None
    key: tuple[int, float] = (RECENT, 0.0)
    held: int = 0


class Cache:
    """Resident prefixes by name: least recently used out first, but that what an open program will read goes last, the
    farthest next use first, and what only programs that need it no more have read goes before all."""

    def __init__(self, capacity: float, memory: float = 0.0) -> None:
        self._capacity = memory or capacity
        self._memory = memory
        self._held = 0.0  # tokens of what runs, shared ones once
        self._own = 0.0  # those of them that no entry has: answers
        self._entries: dict[int, _Entry] = {}
        self._heap: list[tuple[tuple[int, float], int, _Entry]] = []
        self._used = 0.0
        self._clock = 0

    def hit(self, names: Names, ends: Ends) -> float:
        """Tokens of the longest resident prefix."""
        for i in range(len(names) - 1, -1, -1):
            if names[i] in self._entries:
                return ends[i]
        return 0.0

    def put(self, names: Names, ends: Ends, owner: int | None = None) -> None:
        """All of `names` (shortest first) are resident from now on, for a call that runs until `release` or `keep`."""
        before = 0.0
        for name, end in zip(names, ends, strict=True):
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = _Entry(name, end - before, owner)
                self._used += end - before
            elif entry.owner != owner:
                entry.owner = None
            self._rank(entry, (LIVE, self._tick()))
            before = end
        self._shrink()

    def admit(self, names: Names, ends: Ends, tokens: float) -> bool:
        """Whether there is memory for a sequence of so many `tokens`, prompt and answer, beside what runs; if so it is
        held until `discharge`, and the prompt's part is resident as `put` has it. Where it is not bounded, always."""
        if not self._memory:
            return True
        more, before = tokens - (ends[-1] if ends else 0.0), 0.0
        for name, end in zip(names, ends, strict=True):
            entry = self._entries.get(name)
            more += 0.0 if entry is not None and entry.held else end - before
            before = end
        if self._held and self._held + more > self._memory:
            return False
        self._held += more
        self._own += tokens - before
        before = 0.0
        for name, end in zip(names, ends, strict=True):
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = _Entry(name, end - before, None)
                self._used += end - before
            entry.held += 1
            before = end
        self._shrink()
        return True

    def discharge(self, names: Names, ends: Ends, tokens: float) -> None:
        """The sequence has ended."""
        if not self._memory:
            return
        own = tokens - (ends[-1] if ends else 0.0)
        self._held -= own
        self._own -= own
        for name in names:
            entry = self._entries[name]
            entry.held -= 1
            self._held -= 0.0 if entry.held else entry.tokens

    def release(self, names: Names) -> None:
        """The call has ended, and nothing is known of the next."""
        for name in names:
            if name in self._entries:
                self._rank(self._entries[name], (RECENT, self._tick()))

    def keep(self, name: int, next_use: float | None) -> None:
        """`name` is read again at `next_use`, or by no open program."""
        entry = self._entries.get(name)
        if entry is None:
            return
        if next_use is not None:
            self._rank(entry, (NEEDED, -next_use))
        elif entry.owner is not None:
            self._rank(entry, (DONE, self._tick()))
        else:
            self._rank(entry, (RECENT, self._tick()))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _rank(self, entry: _Entry, key: tuple[int, float]) -> None:
        entry.key = key
        heappush(self._heap, (key, self._tick(), entry))
        if len(self._heap) > 4 * len(self._entries) + 64:
            self._heap = [(e.key, self._tick(), e) for e in self._entries.values()]
            heapify(self._heap)

    def _shrink(self) -> None:
        while self._used + self._own > self._capacity and self._heap:
            key, _, entry = heappop(self._heap)
            # What runs has a new place in the heap once it has ended.
            if entry.key == key and not entry.held and self._entries.get(entry.name) is entry:
                del self._entries[entry.name]
                self._used -= entry.tokens
