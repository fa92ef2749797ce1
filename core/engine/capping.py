"""Which running sequences decode in a step, and with how much prefill, so that a latency call keeps its TPOT."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as List
from math import inf

from semantic_parrot.core.engine.sequence import LAST, Sequence

#: Rows of prefill that cost a step about as much as one more sequence that decodes, which is what a cap counts. (CPU,
#: 4 layers of 256: 0.11 ms a row of prefill, 0.9 ms one that decodes: its attention reads a context for it alone.)
PLACE_ROWS = 8


def _caps(sequences: Iterable[Sequence]) -> list[float]:
    """By rank: how many may decode before one of that rank pauses. Only what ranks behind a capping sequence does."""
    most = [inf] * (LAST + 1)
    for s in sequences:
        if s.directions.cap is not None:
            for rank in range(s.rank + 1, LAST + 1):
                most[rank] = min(most[rank], s.directions.cap)
    return most


def decoding(by_rank: List[Sequence], now: float) -> list[Sequence]:
    """Those that decode now, in order; marks those that pause instead.

    While a sequence with a cap c runs, no more than c decode: the first c of `by_rank` (the lowest rank first, then as
    admitted), and whoever ranks no higher than the one who caps.
    """
    most = _caps(by_rank)
    chosen: list[Sequence] = []
    for s in by_rank:
        if s.pending != 1:
            continue
        if len(chosen) < most[s.rank]:
            s.go_on(now)
            chosen.append(s)
        else:
            s.hold_up(now)
    return chosen


class Rows:
    """The rows of prefill in a step, `budget` in all. What ranks behind a capping sequence that decodes has no more
    than the cap leaves: PLACE_ROWS for each place that is free, or for one if none is, so that it comes forward."""

    def __init__(self, budget: int, decoding: List[Sequence]) -> None:
        self._budget = float(budget)
        self._spare = [PLACE_ROWS * max(most - len(decoding), 1) for most in _caps(decoding)]

    def left(self, rank: int) -> int:
        return int(max(min(self._budget, self._spare[rank]), 0))

    def take(self, s: Sequence, now: float | None = None) -> int:
        """As many as `s` can use and have. With a time, `s` is marked if it has fewer for the cap's sake."""
        rows = min(s.pending, self.left(s.rank))
        if now is not None:
            if rows < min(s.pending, self._budget):
                s.hold_up(now)
            else:
                s.go_on(now)
        self._budget -= rows
        if self._spare[s.rank] < inf:
            self._spare = [spare - rows for spare in self._spare]
        return rows
