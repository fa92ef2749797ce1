"""How long a call's answer will be: learned for each call site from the answers it gave lately."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque

#: Tokens expected of an answer before anything was seen.
PRIOR = 128.0


class _Recent:
    """The last answers of a site, in order of time and of size: old ones leave, so the quantile follows a change."""

    __slots__ = ("ordered", "recent")

    def __init__(self, window: int) -> None:
        self.recent: deque[int] = deque(maxlen=window)
        self.ordered: list[int] = []

    def add(self, tokens: int) -> None:
        if len(self.recent) == self.recent.maxlen:
            del self.ordered[bisect_left(self.ordered, self.recent[0])]
        self.recent.append(tokens)
        insort(self.ordered, tokens)

    def quantile(self, q: float) -> float:
        return float(self.ordered[min(int(q * len(self.ordered)), len(self.ordered) - 1)])


class Lengths:
    """Running quantiles by site, each over its last `window` answers; the least recently used site is forgotten."""

    def __init__(self, *, window: int = 48, sites: int = 8192) -> None:
        self._window = window
        self._most = sites
        self._sites: OrderedDict[int, _Recent] = OrderedDict()
        self._all = _Recent(4 * window)

    def observe(self, site: int, tokens: int) -> None:
        """An answer of `site` had `tokens` tokens."""
        recent = self._sites.get(site)
        if recent is None:
            recent = self._sites[site] = _Recent(self._window)
            if len(self._sites) > self._most:
                self._sites.popitem(last=False)
        self._sites.move_to_end(site)
        recent.add(tokens)
        self._all.add(tokens)

    def expect(self, site: int, limit: int | None, *, exact: bool = False, q: float = 0.5) -> float:
        """Tokens of the next answer: the site's quantile, or that of all answers, or the prior; never past `limit`."""
        if exact and limit is not None:
            return float(limit)
        known = self._sites.get(site, self._all)
        tokens = known.quantile(q) if known.ordered else PRIOR
        return tokens if limit is None else min(tokens, float(limit))
