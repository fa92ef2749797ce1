"""The workloads that the project's claims come from; each app is a file of its own, and knows nothing of Parrot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from workloads import w2
from workloads.job import Job, Jobs
from workloads.measure import Play, times

Measure = Callable[[Play, list[Job], float], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Workload:
    """`measure`: how its figures come about. `paper`: (low, high) of the paper's own speed-up over its baseline, where
    it tells one. `engines`: of our own server. `memory`: KV of the engines, as a part of what all jobs hold at once."""

    key: str
    title: str
    jobs: Jobs
    measure: Measure = times
    paper: tuple[float, float] | None = None
    engines: int = 1
    memory: float = 1.0


WORKLOADS = {work.key: work for work in (Workload("W2", "map-reduce summary", w2.jobs, paper=(1.70, 2.37)),)}
