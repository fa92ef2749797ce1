"""How many replicas the load asks for."""

from __future__ import annotations

import math
from collections import deque


class Demand:
    """Between `least` and `most`: one for each `each` calls, and what that was at most in the last `patience` seconds:
    up at once, down when it is sure. No clock: `now` never decreases."""

    def __init__(self, least: int, most: int, each: float, patience: float) -> None:
        assert 1 <= least <= most
        assert each > 0
        self._least, self._most, self._each, self._patience = least, most, each, patience
        self._peaks: deque[tuple[float, int]] = deque()  # each asks for less than the one before

    def replicas(self, now: float, calls: int) -> int:
        """`calls`: those that run, and those that wait."""
        wanted = min(max(math.ceil(calls / self._each), self._least), self._most)
        while self._peaks and self._peaks[-1][1] <= wanted:
            self._peaks.pop()
        self._peaks.append((now, wanted))
        while now - self._peaks[0][0] > self._patience:
            self._peaks.popleft()
        return self._peaks[0][1]
