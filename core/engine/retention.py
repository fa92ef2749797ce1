"""What the prefix tree evicts first.

What was read for the last time; then what nobody said anything about, the least recently used first; then what has a
known next use, the farthest first (Belady's rule). A priority, never a pin: a next use that did not come is forgotten.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Generic, Protocol, TypeVar

from semantic_parrot.core.engines.protocol import Keep

#: Instead of a time (time.monotonic() seconds) of the next use.
NEVER, UNKNOWN = inf, -inf

#: Seconds past its time after which a next use counts as unknown: what is late by as much as the scheduler makes a task
#: wait at the most has been cancelled, or was guessed wrong.
LATE = 30.0


@dataclass(frozen=True, slots=True)
class Uses:
    """The next uses of a token list, as of `told`: of the tokens up to each of `ends` (ascending), and of the rest."""

    told: float
    ends: tuple[int, ...]
    next: tuple[float, ...]

    def at(self, end: int) -> float:
        """Of the block of tokens that ends there."""
        return self.next[bisect_left(self.ends, end)]

    @classmethod
    def of(cls, keep: Sequence[Keep], prompt: int, told: float) -> Uses | None:
        """Of a prompt of so many tokens and its answer; None where nothing is said."""
        if not keep:
            return None
        uses = [NEVER if k.next_use is None else k.next_use for k in keep]
        # An answer is read together with its prompt, or not at all.
        rest = NEVER if uses[-1] == NEVER else UNKNOWN
        return cls(told, tuple(round(k.share * prompt) for k in keep), (*uses, rest))


#: (class, the order within it), the least first
Key = tuple[int, float, float]


class Evictable(Protocol):
    """`used`: when it was read last, counted. Compared by identity."""

    used: int
    next_use: float


Node = TypeVar("Node", bound=Evictable)


class Candidates(Generic[Node]):
    """Nodes that may be evicted, the first to go on top. A node's key may change while it is here: the entry of a key
    that grew is found out when it surfaces, that of a key that shrank is left to rot behind a new one. O(log n)."""

    def __init__(self) -> None:
        self._keys: dict[Node, Key] = {}
        self._heap: list[tuple[Key, int, Node]] = []
        self._late: list[tuple[float, int, Node]] = []  # when known next uses cease to count
        self._serial = itertools.count()

    def __iter__(self) -> Iterator[Node]:
        return iter(self._keys)

    def push(self, node: Node, now: float) -> None:
        if node.next_use + LATE <= now:
            node.next_use = UNKNOWN
        key = key_of(node)
        if (queued := self._keys.get(node)) is not None and queued <= key:
            return
        self._keys[node] = key
        heapq.heappush(self._heap, (key, next(self._serial), node))
        if isfinite(node.next_use):
            heapq.heappush(self._late, (node.next_use + LATE, next(self._serial), node))
        self._compact()

    def pop(self, now: float) -> Node | None:
        """The first to go, which is no candidate any more; None if there is none."""
        while self._late and self._late[0][0] <= now:
            _, _, late = heapq.heappop(self._late)
            if late in self._keys:
                self.push(late, now)
        while self._heap:
            key, _, node = heapq.heappop(self._heap)
            if key != self._keys.get(node):
                continue
            del self._keys[node]
            if key_of(node) == key:
                return node
            self.push(node, now)
        return None

    def discard(self, node: Node) -> None:
        """`node` is no candidate, whether it was one or not."""
        self._keys.pop(node, None)

    def _compact(self) -> None:
        """Entries that rot are at most as many as the others."""
        most = 2 * len(self._keys) + 64
        if len(self._heap) > most:
            self._heap = [entry for entry in self._heap if entry[0] == self._keys.get(entry[2])]
            heapq.heapify(self._heap)
        if len(self._late) > most:
            self._late = [
                entry for entry in self._late if entry[2] in self._keys and entry[0] == entry[2].next_use + LATE
            ]
            heapq.heapify(self._late)


def key_of(node: Evictable) -> Key:
    """Which of two goes first: the one with the lesser key."""
    if node.next_use == NEVER:
        return 0, node.used, 0
    if node.next_use == UNKNOWN:
        return 1, node.used, 0
    # Of equal ones the last read goes first: the stages of a program run in one order, so it is wanted last.
    return 2, -node.next_use, -node.used
