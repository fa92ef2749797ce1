"""The workloads that the project's claims come from; each app is a file of its own, and knows nothing of Parrot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workloads import traces, w1, w2, w2_sk, w3, w4, w4_sk, w5, w6, w7, w8
from workloads.job import Job, Jobs
from workloads.measure import Play, beside, first_kind, rate_at_slo, times

Framework = Literal["langchain", "sk"]
Measure = Callable[[Play, list[Job], float], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Workload:
    """`measure`: how its figures come about. `paper`: (low, high) of the paper's own result over its baseline, where
    it tells one that compares. `engines`: of our own server. `memory`: KV of the engines, as a part of what all jobs
    hold at once. `framework`: that the app is written in. `scale`: of its sizes, where 1 is the paper's; by default
    they take some seconds a time on two cores."""

    key: str
    title: str
    jobs: Jobs
    measure: Measure = times
    paper: tuple[float, float] | None = None
    engines: int = 1
    memory: float = 1.0
    framework: Framework = "langchain"
    scale: float = 0.05


WORKLOADS = {
    work.key: work
    for work in (
        Workload("W1", "chain summary", w1.several(1), paper=(1.11, 1.38), scale=0.2),
        Workload("W1-10", "ten chain summaries at once", w1.several(10), paper=(1.38, 1.68), scale=0.1),
        Workload("W1-25", "25 chain summaries at once", w1.several(25), paper=(1.38, 1.68), scale=0.1),
        Workload(
            "W1-background",
            "chain summary beside other requests",
            w1.with_background,
            first_kind,
            (1.11, 2.38),
            scale=0.2,
        ),
        Workload("W2", "map-reduce summary", w2.jobs, paper=(1.70, 2.37), scale=0.2),
        Workload(
            "W2-sk", "map-reduce summary, Semantic Kernel", w2_sk.jobs, paper=(1.70, 2.37), framework="sk", scale=0.2
        ),
        Workload("W3", "copilot", w3.jobs, paper=(1.8, 2.4), scale=0.15),
        Workload("W4", "GPTs", w4.jobs, rate_at_slo, paper=(3.0, 12.0), engines=2),
        Workload("W4-sk", "GPTs, Semantic Kernel", w4_sk.jobs, rate_at_slo, (3.0, 12.0), engines=2, framework="sk"),
        Workload("W5", "multi-agent coding", w5.jobs, paper=(2.45, 11.7)),
        Workload("W6", "chat beside map-reduce", w6.jobs, beside, paper=(3.7, 5.5)),
        Workload("W7", "tool agents", w7.jobs, memory=0.25),
        Workload("W8", "plain chat", w8.jobs),
    )
}


def workload(name: str) -> Workload:
    """One of those, or of a trace's file. Raises ValueError with one line."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    path = Path(name)
    if path.suffix in traces.KINDS and path.is_file():
        title, jobs = traces.KINDS[path.suffix]
        return Workload(path.name, title, jobs(path))
    there = ", ".join([*WORKLOADS, "or a file of a trace (.csv, .jsonl)"])
    raise ValueError(f"no workload is called {name!r}; there is: {there}")
