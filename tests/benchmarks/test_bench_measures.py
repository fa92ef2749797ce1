"""Figures of a workload, from jobs that are played without servers: rates under an SLO, chat beside batch work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from workloads.job import Call, Job
from workloads.measure import Outcome, beside, first_kind, p99, rate_at_slo, times

TOKENS = 10


def jobs(count: int, app: str = "chat", stream: bool = False) -> list[Job]:
    """One a second."""
    return [Job(float(i + 1), app, None, None, (Call(1, TOKENS),), stream) for i in range(count)]


class Queue:
    """A server that needs more time the more comes: `capacity` requests a second are served as the SLO of 1 s a token
    has it."""

    def __init__(self, capacity: float) -> None:
        self.capacity, self.rates = capacity, list[float]()

    async def __call__(self, due: Sequence[Job]) -> list[Outcome]:
        self.rates.append(len(due) / due[-1].at)
        took = TOKENS * (self.rates[-1] / self.capacity) ** 2
        return [Outcome(job, job.at, job.at + took, "") for job in due]


@pytest.mark.parametrize("capacity", [0.5, 0.9, 3.2, 30.0])
def test_the_rate_is_the_one_at_which_the_slo_is_passed(capacity: float) -> None:
    queue = Queue(capacity)
    found = asyncio.run(rate_at_slo(queue, jobs(20), 1.0))
    assert found["rate"] == pytest.approx(capacity, rel=1e-6)
    assert len(queue.rates) < 8


def test_a_rate_that_no_server_reaches_is_not_looked_for_for_ever() -> None:
    queue = Queue(1e9)
    found = asyncio.run(rate_at_slo(queue, jobs(20), 1.0))
    assert found["rate"] == queue.rates[-1]


def test_no_rate_is_within_an_slo_that_a_request_alone_misses() -> None:
    queue = Queue(1e-9)
    assert asyncio.run(rate_at_slo(queue, jobs(20), 1.0)) == {"rate": 0.0}
    assert len(queue.rates) == 4


def test_a_request_is_timed_from_when_it_was_due() -> None:
    late = Outcome(jobs(1)[0], began=4.0, ended=5.0, text="")
    assert late.took == 4.0


async def played(due: Sequence[Job]) -> list[Outcome]:
    """Streams have a token each 0.1 s, 0.2 s where batch work is beside them; that ends after 3 s, beside chat 4."""
    kinds = {job.app.removesuffix(" alone") for job in due}
    step = 0.1 * len(kinds)
    streams = tuple(step * i for i in range(TOKENS))
    end = 3.0 if len(kinds) == 1 else 4.0
    return [Outcome(j, j.at, j.at + end, "", streams if j.stream else ()) for j in due]


def test_chat_beside_batch_work_is_told_over_each_alone() -> None:
    mixed = [
        job
        for way in (" alone", "")
        for job in [*jobs(3, f"chat{way}", stream=True), *(replace(j, at=0.0) for j in jobs(2, f"map-reduce{way}"))]
    ]
    found = asyncio.run(beside(played, mixed, 1.0))
    assert found["chat_over_alone"] == pytest.approx(2.0)
    assert found["batch_kept"] == pytest.approx(0.75)
    assert found["seconds"] == pytest.approx(4.0)


def test_streams_have_a_time_per_token() -> None:
    found = asyncio.run(times(played, jobs(3, stream=True), 1.0))
    assert [found["tpot"], found["tpot_p99"]] == pytest.approx([0.1, 0.1])
    assert found["seconds"] == pytest.approx(3.0)
    assert found["whole"] == pytest.approx(6.0)
    assert "tpot" not in asyncio.run(times(played, jobs(3), 1.0))


def test_what_only_disturbs_is_not_told() -> None:
    both = [*jobs(1, "chain"), *jobs(5, "background")]
    found = asyncio.run(first_kind(played, both, 1.0))
    assert found == {"seconds": 4.0, "whole": 5.0}


def test_the_99th_percentile() -> None:
    assert p99([1.0]) == 1.0
    assert p99(list(range(200))) == 198
