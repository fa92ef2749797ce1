"""Tasks in an order."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from semantic_parrot.core.scheduling.task import Task

#: (priority first, the latest start, ticket, task)
Entry = tuple[int, float, int, Task]


class Heap:
    """A heap whose tasks may leave in the meantime; those are dropped as they surface, or when they are the most."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.live = 0

    def push(self, entry: Entry) -> None:
        heappush(self._entries, entry)
        self.live += 1
        if len(self._entries) > 2 * self.live + 64:
            self._entries = [entry for entry in self._entries if entry[3].state == "waiting"]
            heapify(self._entries)

    def top(self) -> Entry | None:
        while self._entries:
            if self._entries[0][3].state == "waiting":
                return self._entries[0]
            heappop(self._entries)
        return None
