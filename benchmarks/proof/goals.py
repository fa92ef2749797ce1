"""The goals of the workloads, and whether figures of paired repetitions meet them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from intervals import interval

Data = dict[str, Any]
FEWEST = 3  # pairs, below which nothing is told
WIDEST = 1.5  # high end of an interval over its low end, above which it tells nothing


@dataclass(frozen=True, slots=True)
class Goal:
    """Of a workload's `figure`: how many times better than each of `than`, by its name, and where it differs by round
    trip, by that, too: ("E1", 250.0). `more`: a higher figure is better."""

    workload: str
    figure: str
    what: str
    than: dict[str | tuple[str, float], float] = field(default_factory=dict)
    more: bool = False

    def wanted(self, comparator: str, rtt: float) -> float | None:
        return self.than.get((comparator, rtt), self.than.get(comparator))


GOALS = (
    Goal("W1", "seconds", "completion", {("E0", 250.0): 2.5, ("E1", 250.0): 1.9, ("E1", 0.0): 1.15}),
    Goal("W1-background", "seconds", "completion of the chain", {"E0": 4.0}),
    Goal("W2", "seconds", "completion", {"E0": 4.4, "E1": 1.5}),
    Goal("W3", "seconds", "completion", {"E0": 3.0}),
    Goal("W3", "tpot", "time per token", {"E1": 1.7}),
    Goal("W4", "rate", "requests a second within the SLO", {"E0": 15.0, "E1": 3.0}, more=True),
    Goal("W5", "seconds", "completion", {"E0": 14.0, "E1": 2.0}),
    Goal("W7", "seconds", "completion", {"E1": 3.0}),
    Goal("W8", "seconds", "completion", {"E1": 0.99}),
)

#: Workloads of one job, alone: what it takes is what the lower bound is of.
BOUNDED = ("W1", "W2", "W5")


def goal_of(key: str) -> Goal:
    """The first one of a workload, or of the one that it is a variant of: it says what is compared."""
    base = key.partition("-")[0]
    own = next((goal for name in (key, base) for goal in GOALS if goal.workload == name), None)
    return Goal(key, "seconds", "completion") if own is None else replace(own, workload=key)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of paired repetitions: the median and the ends of its interval; `pairs` of them."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        if self.pairs < FEWEST:
            return f"too few repetitions ({self.pairs})"
        if self.high > WIDEST * self.low:
            return f"noise hides it [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def told(self) -> bool:
        return self.pairs >= FEWEST and self.high <= WIDEST * self.low

    def verdict(self, goal: float) -> str:
        """An interval that neither reaches the goal whole nor misses it whole decides nothing. One that is too wide to
        tell a figure may decide that."""
        if self.pairs < FEWEST:
            return "not decided"
        return "met" if self.low >= goal else "missed" if self.high < goal else "not decided"

    def within(self, goal: float) -> str:
        """The same of a goal that is a ceiling."""
        if self.pairs < FEWEST:
            return "not decided"
        return "met" if self.high <= goal else "missed" if self.low > goal else "not decided"


def ratio_of(pairs: Sequence[float]) -> Ratio | None:
    if not pairs:
        return None
    sure = interval(list(pairs))
    return Ratio(statistics.median(pairs), sure["low"], sure["high"], len(pairs))


def figures(data: Data, workload: str, comparator: str, rtt: float, figure: str) -> dict[int, float]:
    """repetition → figure"""
    return {
        run["repeat"]: run["figures"][figure]
        for run in data["runs"]
        if (run["workload"], run["comparator"], run["rtt"]) == (workload, comparator, rtt) and figure in run["figures"]
    }


def better(data: Data, goal: Goal, comparator: str, rtt: float, ours: str = "parrot") -> Ratio | None:
    """How many times better ours is, in repetitions that both have."""
    own, other = (figures(data, goal.workload, name, rtt, goal.figure) for name in (ours, comparator))
    both = sorted(own.keys() & other.keys())
    over = [(own[i], other[i]) if goal.more else (other[i], own[i]) for i in both]
    return ratio_of([above / below for above, below in over if below > 0])
