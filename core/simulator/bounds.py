"""What no schedule can do better than: of one program alone on idle engines, and of a whole trace at its load.

Of one program, `path` is its critical path at an idle engine's costs. It is no tight bound for a fan-out: an engine
fills one prompt after the other, and a fuller batch has longer steps. So the calls of one depth, which are parallel,
are also bounded by the work they need. An engine that runs some of them takes base seconds for each of its steps, of
which there are at least as many as the longest of them needs, and besides that the work of all of them (prefill of
each fresh token, each and token of each generated one), whatever the order. With T seconds for all, an engine whose
longest call needs m steps therefore has room for T - base m seconds of work. Give the calls with the most steps to the
first engine until it has no room (the last one in part), the next ones to the second, and so on: that makes every m as
small as it can be, so if some are left over no assignment ends in T. The level takes that T, after the shortest path
up to any of its calls and before the shortest one after any. And for all levels from the first that is wider than the
engines to the last, the paths through them are bounded together (`paths`).

And of the whole program: all its work is done by the engines, which make at least as many steps together as lie on the
path with the most, one after the other. Of one engine, beside which nothing can be done, that is the tightest.

Of a trace, the mean completion time is at least
  - the mean of the programs' own bounds;
  - that of shortest-remaining-first on one machine as fast as all engines, which needs of each program only what no
    schedule can save (`Costs.share`) and may serve any part of it at any time: SRPT is optimal there (Schrage 1968);
  - that of the programs' paths, on which tokens wait for each other in the steps that there can be (`paths`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, sqrt

from semantic_parrot.core.simulator.costs import Costs
from semantic_parrot.core.simulator.paths import Tokens, cover, together


@dataclass(frozen=True, slots=True)
class Cost:
    """One call's: seconds before it may start (a pause), seconds of work that no batch saves, and steps. `tokens`: what
    of its work is not prefill."""

    after: float
    work: float
    steps: float
    tokens: Tokens

    def alone(self, costs: Costs) -> float:
        """Seconds at an idle engine."""
        return self.work + costs.base * self.steps


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of a program: its critical path, and the largest of the bounds above. `mean`: of its paths, by which its
    tokens have the weights in `root` and `own` (see `paths`)."""

    path: float
    bound: float
    mean: float
    root: float
    own: float


def program_bound(calls: Sequence[tuple[Cost, Sequence[int]]], engines: int, costs: Costs) -> Bound:
    """Each call with the indices of its producers, which come before it."""
    took = [cost.alone(costs) for cost, _ in calls]
    heads, tails, depths = [0.0] * len(calls), [0.0] * len(calls), [0] * len(calls)
    steps = [0.0] * len(calls)
    for i, (cost, producers) in enumerate(calls):
        heads[i] = cost.after + max((heads[p] + took[p] for p in producers), default=0.0)
        depths[i] = max((depths[p] + 1 for p in producers), default=0)
        steps[i] = cost.steps + max((steps[p] for p in producers), default=0.0)
    for i in range(len(calls) - 1, -1, -1):
        for p in calls[i][1]:
            tails[p] = max(tails[p], calls[i][0].after + took[i] + tails[i])
    path = max(head + seconds for head, seconds in zip(heads, took, strict=True))
    levels: dict[int, list[int]] = {}
    for i, depth in enumerate(depths):
        levels.setdefault(depth, []).append(i)
    best = max(path, (sum(cost.work for cost, _ in calls) + costs.base * max(steps)) / engines)
    wide = [depth for depth, level in levels.items() if len(level) > engines]
    for level in map(levels.__getitem__, wide):
        within = parallel([(calls[i][0].steps, calls[i][0].work) for i in level], engines, costs.base)
        best = max(best, min(heads[i] for i in level) + within + min(tails[i] for i in level))
    paths = cover(took, [cost.after for cost, _ in calls], heads, tails, [producers for _, producers in calls])
    if wide:
        inner = [i for i, depth in enumerate(depths) if min(wide) <= depth <= max(wide)]
        outside = min(heads[i] for i in inner) + min(tails[i] for i in inner)
        work = sum(calls[i][0].work for i in inner)
        tokens = {i: calls[i][0].tokens for i in inner}
        best = together(paths, tokens, lambda t: (engines * (t - outside) - work) / costs.base, best)
    weights: Counter[int] = Counter()
    for through in paths:
        weights.update(through.calls)
    n = len(paths)
    return Bound(
        path,
        best,
        sum(through.seconds for through in paths) / n,
        sum(sqrt(weight / n) * calls[i][0].tokens.root for i, weight in weights.items()),
        sum(weight / n * calls[i][0].tokens.marginal for i, weight in weights.items()),
    )


def parallel(calls: Sequence[tuple[float, float]], engines: int, base: float) -> float:
    """Seconds that parallel calls, each with its steps and its work, take on `engines` engines at the least."""
    calls = sorted(calls, reverse=True)
    work = sum(own for _, own in calls)
    low = max(work / engines, base * calls[0][0])
    high = work + base * calls[0][0]
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _fits(calls, engines, base, middle) else (middle, high)
    return low


def _fits(calls: Sequence[tuple[float, float]], engines: int, base: float, seconds: float) -> bool:
    used, room = 0, 0.0
    for steps, work in calls:
        while work > room:
            if used == engines:
                return False
            work -= room
            room = seconds - base * steps
            used += 1
            if room <= 0:
                return False
        room -= work
    return True


def shortest_first(work: Sequence[tuple[float, float]]) -> float:
    """The mean completion time of (arrival, seconds) under shortest remaining first, on one machine."""
    ready: list[float] = []
    now = total = 0.0
    coming = sorted(work)
    for i, (at, seconds) in enumerate(coming):
        now = max(now, at) if not ready else now
        heappush(ready, seconds)
        total -= at
        until = coming[i + 1][0] if i + 1 < len(coming) else inf
        now = max(now, at)
        while ready and now < until:
            least = heappop(ready)
            if now + least > until:
                heappush(ready, least - (until - now))
                now = until
            else:
                now += least
                total += now
    return total / len(work) if work else 0.0


@dataclass(slots=True, eq=False)
class Trace:
    """Sums over the calls that ran, `fills` and `marginal` seconds, and over the programs that ended (see Bound), for
    the floor at their load."""

    fills: float = 0.0
    marginal: float = 0.0
    mean: float = 0.0
    root: float = 0.0
    own: float = 0.0

    def least(self, engines: int, horizon: float, costs: Costs) -> float:
        """Seconds of all programs together, at the least."""
        steps = (engines * horizon - self.fills - self.marginal) / costs.base
        return self.mean + (max(0.0, self.root**2 / steps - self.own) if steps > 0 else 0.0)
