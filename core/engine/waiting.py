"""The sequences that wait for a place, in the order in which they should have one."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from semantic_parrot.core.engine.sequence import Sequence

#: Seconds in all after which what is preempted, passed over, paused or slowed goes on regardless, one at a time: the
#: scheduler's own patience (`scheduling.Policy`), so that nothing is held up here for longer than it could have been
#: there.
PATIENCE = 30.0


class Waiting:
    """By `Sequence.order`; but of one rank, those that have run before those that never did. Owned by the planner."""

    def __init__(self) -> None:
        self._queue: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        """In the order in which they should be admitted."""
        return iter(self._queue)

    def add(self, sequence: Sequence) -> None:
        insort(self._queue, sequence, key=_place)

    def remove(self, sequence: Sequence) -> None:
        self._queue.remove(sequence)

    def passed(self, admitted: Sequence, now: float) -> None:
        """Those that go on hold as it is admitted: who ranks behind it, or came before it."""
        rank, arrived = admitted.directions.rank, admitted.arrived
        for sequence in self._queue:
            if sequence.directions.rank > rank or sequence.arrived < arrived:
                sequence.hold_up(now)


def _place(sequence: Sequence) -> tuple[float, ...]:
    rank, *order = sequence.order
    return rank, sequence.cached is None, *order
