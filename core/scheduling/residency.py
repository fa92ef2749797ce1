"""Which engine holds which prefixes: a radix index, flattened.

A prefix is named by the hash of all its text (`analysis.boundaries`), so the name of a path through the radix tree is
its key, and what is resident of a prompt is found by asking for its prefixes' names, without walking anything.

Bounded: an engine has at most `each` entries, the least recently used go. What is believed here may be wrong, which
costs time and never an answer: an engine that tells what it holds (`engines.protocol.Telling`) is followed, of the
others it is believed that what was sent there is there, until a miss shows that it is not.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Collection, Sequence

#: Prefixes that one engine is taken to hold, at most, and all those of a model together: some 0.7 GiB then.
EACH, ALL = 4096, 1 << 21


class Residency:
    """Of so many `engines`. `now` never decreases between calls."""

    def __init__(self, engines: int) -> None:
        self.each = min(EACH, ALL // max(engines, 1))
        self._used: list[OrderedDict[int, float]] = [OrderedDict() for _ in range(engines)]
        self._holders: dict[int, array[int]] = {}

    def hold(self, index: int, names: Sequence[int], now: float) -> None:
        """The engine has these, or will soon."""
        used = self._used[index]
        for name in names:
            if name in used:
                used.move_to_end(name)
            else:
                holders = self._holders.get(name)
                if holders is None:
                    self._holders[name] = array("q", (index,))
                else:
                    insort(holders, index)
            used[name] = now
        while len(used) > self.each:
            self._left(index, used.popitem(last=False)[0])

    def lose(self, index: int, names: Collection[int]) -> None:
        """The engine has these no more."""
        for name in names:
            if self._used[index].pop(name, None) is not None:
                self._left(index, name)

    def lose_before(self, index: int, when: float) -> None:
        """Nor what was last used there before `when`."""
        used = self._used[index]
        while used and next(iter(used.values())) < when:
            self._left(index, used.popitem(last=False)[0])

    def forget(self, index: int) -> None:
        """All that the engine was taken to hold."""
        for name in self._used[index]:
            self._left(index, name)
        self._used[index].clear()

    def last_used(self, index: int, names: Sequence[int]) -> float:
        """When the last of these was used there; 0 if none is there."""
        used = self._used[index]
        return max((used.get(name, 0.0) for name in names), default=0.0)

    def names(self, index: int) -> Collection[int]:
        """All that the engine is taken to hold, the least recently used first."""
        return self._used[index].keys()

    def longest(self, index: int, names: Sequence[int], tokens: Sequence[float]) -> float:
        """Of `tokens` those of the longest of `names` (shortest first) that is there; 0 if none is."""
        used = self._used[index]
        for i in range(len(names) - 1, -1, -1):
            if names[i] in used:
                return tokens[i]
        return 0.0

    def holders(self, name: int) -> array[int] | None:
        """The engines that hold it, ascending; None if there is none. Not to be changed, nor kept."""
        return self._holders.get(name)

    def _left(self, index: int, name: int) -> None:
        holders = self._holders[name]
        if len(holders) == 1:
            del self._holders[name]
        else:
            del holders[bisect_left(holders, index)]
