"""What is told of a workload that ran: figures by name, of the jobs' outcomes."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from workloads.job import Job


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds after the start of all jobs: when it was called, and ended; `chunks`: when its stream's pieces came."""

    job: Job
    began: float
    ended: float
    text: str
    chunks: tuple[float, ...] = ()

    @property
    def took(self) -> float:
        """From when it was due, so that a client that is behind is no faster for it."""
        return self.ended - self.job.at

    @property
    def tokens(self) -> int:
        return sum(call.tokens for call in self.job.calls)

    @property
    def tpot(self) -> float:
        """Of a stream: seconds for each token after the first. (A chunk may have several tokens.)"""
        return (self.chunks[-1] - self.chunks[0]) / max(1, self.job.calls[-1].tokens - 1)


Play = Callable[[Sequence[Job]], Awaitable[list[Outcome]]]


async def times(play: Play, jobs: list[Job], slo: float) -> dict[str, float]:
    """`seconds`: a job's, on average; `whole`: until the last one ends. Where answers are read as they come, also
    `tpot` and its 99th percentile."""
    outcomes = await play(jobs)
    found = {"seconds": statistics.fmean(o.took for o in outcomes), "whole": max(o.ended for o in outcomes)}
    tpots = [o.tpot for o in outcomes if len(o.chunks) > 1]
    return found | ({"tpot": statistics.fmean(tpots), "tpot_p99": p99(tpots)} if tpots else {})


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]
