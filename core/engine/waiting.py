"""The sequences that wait for a place: by rank, and first come, first served within one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from semantic_parrot.core.engine.sequence import RANKS, Sequence

#: Seconds in all after which what is preempted, passed over, paused or slowed goes on regardless: the scheduler's own
#: patience (`scheduling.Policy`), so that nothing is held up here for longer than it could have been there.
PATIENCE = 30.0


class Waiting:
    """Owned by the planner. A sequence of a higher rank is passed over from when one of a lower rank is admitted while
    it waits; those for whom that is too long ago go before all others."""

    def __init__(self) -> None:
        # First the overdue ones, then one lane for each rank.
        self._lanes: list[OrderedDict[Sequence, None]] = [OrderedDict() for _ in range(1 + RANKS)]

    def __len__(self) -> int:
        return sum(map(len, self._lanes))

    def __iter__(self) -> Iterator[Sequence]:
        """In the order in which they should be admitted."""
        for lane in self._lanes:
            yield from lane

    def add(self, sequence: Sequence) -> None:
        self._lane(sequence)[sequence] = None

    def put_back(self, sequence: Sequence) -> None:
        """One that has run waits again, before those that never did."""
        lane = self._lane(sequence)
        lane[sequence] = None
        lane.move_to_end(sequence, last=False)

    def remove(self, sequence: Sequence) -> None:
        del self._lane(sequence)[sequence]

    def passed(self, rank: int, now: float) -> None:
        """One of `rank` is admitted, and those of a higher rank are not."""
        for lane in self._lanes[2 + rank :]:
            for sequence in reversed(lane):
                if sequence.held_up is not None:
                    break  # so are all that came before it
                sequence.hold_up(now)

    def mature(self, now: float) -> None:
        """Those that were passed over for too long come first from now on."""
        for lane in self._lanes[1:]:
            while lane and (sequence := next(iter(lane))).held_for(now) >= PATIENCE:
                del lane[sequence]
                sequence.overdue = True
                self._lanes[0][sequence] = None

    def _lane(self, sequence: Sequence) -> OrderedDict[Sequence, None]:
        return self._lanes[0 if sequence.overdue else 1 + sequence.directions.rank]
