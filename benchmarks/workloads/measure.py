"""What is told of a workload that ran: figures by name, of the jobs' outcomes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

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


async def first_kind(play: Play, jobs: list[Job], slo: float) -> dict[str, float]:
    """Of the jobs that are of the first one's kind; the others are there to disturb it."""
    outcomes = await play(jobs)
    own = [o for o in outcomes if o.job.app == jobs[0].app]
    return {"seconds": statistics.fmean(o.took for o in own), "whole": max(o.ended for o in own)}


#: Of `rate_at_slo`: requests on their way at once at the first rate, if each takes as long as it may; the factor to the
#: next rate; and how many rates above and below it at most. (Below, requests hardly meet any more.)
START, STEP, ABOVE, BELOW = 32.0, 2.0, 8, 3


async def rate_at_slo(play: Play, jobs: list[Job], slo: float) -> dict[str, float]:
    """`rate`: requests a second at which a token, of the whole time that a request takes, takes `slo` seconds on
    average, 0 if it does at none. Rates are doubled, or halved, until it is passed; between the last two of them the
    logarithm of the time is taken to rise with that of the rate."""
    own = len(jobs) / jobs[-1].at

    async def per_token(rate: float) -> float:
        outcomes = await play([replace(job, at=job.at * own / rate) for job in jobs])
        return statistics.fmean(o.took / o.tokens for o in outcomes)

    rate = START / slo / statistics.fmean(job.calls[-1].tokens for job in jobs)
    took = await per_token(rate)
    within = took <= slo
    factor = STEP if within else 1 / STEP
    for _ in range(ABOVE if within else BELOW):
        before, rate = took, rate * factor
        took = await per_token(rate)
        if (took > slo) is within:
            return {"rate": rate / factor * factor ** (math.log(slo / before) / math.log(took / before))}
    return {"rate": rate if within else 0.0}


async def beside(play: Play, jobs: list[Job], slo: float) -> dict[str, float]:
    """Chat and batch work, each alone (jobs that say so) and then both: what chat's 99th percentile of time per token
    is over that alone, and what is left of the batch's throughput."""
    first, rest = ([job for job in jobs if job.app.endswith(" alone") is alone] for alone in (True, False))
    chats, batch = ([job for job in first if job.app.startswith("chat") is chat] for chat in (True, False))
    alone, lone = await play(chats), await play(batch)
    both = await play(rest)
    chat = [[o.tpot for o in outcomes if o.job.app.startswith("chat")] for outcomes in (alone, both)]
    ends = [max(o.ended for o in outcomes if o.job.app != "chat") for outcomes in (lone, both)]
    return {
        "seconds": statistics.fmean(o.took for o in both if o.job.app != "chat"),
        "whole": max(o.ended for o in both),
        "tpot": statistics.fmean(chat[1]),
        "tpot_p99": p99(chat[1]),
        "chat_over_alone": p99(chat[1]) / p99(chat[0]),
        "batch_kept": ends[0] / ends[1],
    }
