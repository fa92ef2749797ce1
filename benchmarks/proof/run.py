"""A benchmark from its first server to its last repetition. What is measured is on disk before the next thing is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from engines.results import Results
from peers.peer import Setup
from peers.process import PeerFailed
from proof import costs as cost
from proof import play, room
from proof.comparators import OURS, Comparator
from proof.goals import BOUNDED
from proof.servers import Running, alone, started
from semantic_parrot.core.simulator.costs import Costs
from workloads import Workload
from workloads.job import Job, Jobs
from workloads.measure import Outcome, times
from workloads.texts import Texts

#: How many times as long as alone a request may take for each token, to be served as agreed.
SLO = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run. `checkpoints`: by type of weights; in fp32 texts are compared, those of `dtypes` are measured.
    `rtts`: in milliseconds. `cores`: of servers, None: any."""

    works: tuple[Workload, ...]
    comparators: tuple[Comparator, ...]
    rtts: tuple[float, ...]
    repeats: int
    seed: int
    dtypes: tuple[str, ...]
    threads: int
    home: Path
    cores: str | None = None

    def groups(self) -> list[list[Workload]]:
        """Workloads that the same servers can serve."""
        found: dict[tuple[int, float], list[Workload]] = {}
        for work in self.works:
            found.setdefault((work.engines, work.memory), []).append(work)
        return list(found.values())

    @property
    def steps(self) -> int:
        """How often a run reports progress."""
        rounds = self.repeats * len(self.rtts) * len(self.dtypes) + 1
        return rounds * len(self.works) * len(self.comparators)


@dataclass(slots=True)
class Bench:
    """`advance`: told when a comparator is done with a workload once. `say`: told what is under way."""

    plan: Plan
    kept: Results
    texts: Texts
    checkpoints: dict[str, Path]
    say: Callable[[str], None]
    advance: Callable[[], None]
    _meter: cost.Meter | None = field(default=None, init=False)
    _broken: set[tuple[str, str]] = field(default_factory=set, init=False)

    def run(self) -> None:
        with asyncio.Runner() as runner:
            for dtype, checkpoint in self.checkpoints.items():
                for works in self.plan.groups():
                    self._group(runner, dtype, checkpoint, works)

    def _group(self, runner: asyncio.Runner, dtype: str, checkpoint: Path, works: list[Workload]) -> None:
        plan = self.plan
        needs = [room.needs(work) for work in works]
        window, kv = max(n.window for n in needs), max(n.kv for n in needs)
        setup = Setup(checkpoint, dtype, plan.threads, window=window, reuse=True, cores=plan.cores)
        flags = (f"--engines={works[0].engines}", f"--kv-tokens={kv}")
        rtts = tuple(dict.fromkeys((0.0, *plan.rtts)))
        with started(plan.comparators, plan.home, setup, rtts, flags, self.kept, self.say) as running:
            costs = self._costs(running, setup, dtype)
            for work in works:
                if dtype == "float32":
                    self._check(runner, work, running, costs)
                if dtype in plan.dtypes:
                    self._measure(runner, work, running, dtype, costs)

    def _costs(self, running: list[Running], setup: Setup, dtype: str) -> Costs | None:
        self._meter = None
        ours = next((one for one in running if one.comparator.server == "own"), None)
        if ours is None:
            return None
        self.say(f"{dtype}: what a token costs")
        try:
            with alone(ours, running):
                meter = cost.Meter(partial(ours.peer.ask, ours.process, setup), self.texts, setup.window)
                found = meter.costs()
        except PeerFailed as error:
            self.kept.failure(dtype, "the lower bound", None, str(error))
            return None
        self.kept.data.setdefault("costs", {})[dtype] = cost.told(found)
        self._meter = meter
        return found

    def _check(self, runner: asyncio.Runner, work: Workload, running: list[Running], costs: Costs | None) -> None:
        """Everybody's texts beside ours, in fp32. It warms up, too."""
        own: dict[str, Any] = self.kept.data["checks"].setdefault(work.key, {})
        reference: list[str] | None = None
        everything = replace(work, jobs=at_once(work.jobs), measure=times)
        for one in sorted(running, key=lambda one: one.name != OURS):
            self.say(f"{work.key}: the text of {one.name}")
            with self._watched(one, running, work, "float32"):
                _, outcomes = runner.run(self._once(everything, one, 0.0, "check", costs))
                texts = [o.text for o in outcomes]
                reference = texts if reference is None else reference
                wrong = difference(reference, texts)
                own[one.name] = {"same": wrong is None, "answers": len(texts), "difference": wrong}
            self.advance()
        self.kept.save()

    def _measure(
        self, runner: asyncio.Runner, work: Workload, running: list[Running], dtype: str, costs: Costs | None
    ) -> None:
        plan, order = self.plan, Random(work.key)
        for repeat in range(plan.repeats):
            for rtt in plan.rtts:
                for one in order.sample(running, len(running)):
                    if (one.name, work.key) in self._broken:
                        continue
                    self.say(f"{work.key}, {rtt:g} ms: {one.name}")
                    with self._watched(one, running, work, dtype):
                        seed = f"{work.key}/{plan.seed}/{dtype}/{rtt:g}/{repeat}"
                        tries = self._tried(one, work, seed, "before")
                        row, outcomes = runner.run(self._once(work, one, rtt, seed, costs))
                        if tries := [*tries, *self._tried(one, work, seed, "after")]:
                            row |= _bound(cost.best(tries), outcomes, rtt, work.engines)
                        text = hashlib.sha256("\0".join(o.text for o in outcomes).encode()).hexdigest()[:16]
                        place = {"workload": work.key, "comparator": one.name, "rtt": rtt, "repeat": repeat}
                        self.kept.data["runs"].append({**place, "dtype": dtype, "text": text, **row})
                        self.kept.save()
                    self.advance()

    def _tried(self, one: Running, work: Workload, *name: str) -> list[cost.Try]:
        """What tokens cost at this moment, for ours in a workload of which a bound is told."""
        if self._meter is None or one.name != OURS or work.key not in BOUNDED:
            return []
        return [self._meter.measured(*name)]

    async def _once(
        self, work: Workload, one: Running, rtt: float, seed: str, costs: Costs | None
    ) -> tuple[dict[str, Any], list[Outcome]]:
        async with one.handed(work.framework, rtt) as model:
            jobs = work.jobs(model, self.texts, work.scale, seed)
            return await self._played(work, one, rtt, jobs, costs, model.tokens if work.framework == "sk" else None)

    async def _played(
        self,
        work: Workload,
        one: Running,
        rtt: float,
        jobs: list[Job],
        costs: Costs | None,
        spent: Callable[[], int] | None,
    ) -> tuple[dict[str, Any], list[Outcome]]:
        total = play.Usage()
        all_outcomes: list[Outcome] = []

        async def played(some: Sequence[Job]) -> list[Outcome]:
            usage = play.Usage()
            outcomes = await play.play(some, usage, spent)
            total.add(usage)
            all_outcomes.extend(outcomes)
            return outcomes

        if one.own:
            play.forget(one.base)
        before = play.counters(one.base) if one.own else {}
        slo = SLO * max(cost.alone(job, costs or Costs(), rtt / 1e3) for job in jobs)
        figures = await work.measure(played, jobs, slo)
        row = {"figures": figures, "calls": total.calls, "tokens": total.tokens, "prompt": total.prompt}
        if one.own:
            row |= {name: value - before[name] for name, value in play.counters(one.base).items()}
        return row, all_outcomes

    @contextmanager
    def _watched(self, one: Running, running: list[Running], work: Workload, dtype: str) -> Iterator[None]:
        """Only its server runs. What goes wrong is noted, and not tried again; a comparator whose server died is asked
        no more."""
        try:
            with alone(one, running):
                yield
        except (PeerFailed, OSError) as error:
            gone = one.process.ended()
            why = gone or str(error)
            self._broken.add((one.name, work.key))
            self.kept.failure(dtype, one.name, None if gone else work.key, why)
            self.say(f"{one.name}, {work.key}: {why}")
            if gone:
                running.remove(one)


def _bound(costs: Costs, outcomes: Sequence[Outcome], rtt: float, engines: int) -> dict[str, Any]:
    bound = cost.bound([outcome.job for outcome in outcomes], costs, engines) + rtt / 1e3
    return {"bound": bound, "costs": cost.told(costs)}


def at_once(jobs: Jobs) -> Jobs:
    return lambda *given: [replace(job, at=0.0) for job in jobs(*given)]


def difference(expected: list[str], texts: list[str]) -> str | None:
    """What is other in `texts`, None if nothing is."""
    for number, (want, text) in enumerate(zip(expected, texts, strict=True)):
        if want != text:
            pairs = enumerate(zip(want, text, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(want), len(text)))
            there = slice(at, at + 20)
            return f"answer {number} differs from character {at} on: {text[there]!r}, not {want[there]!r}"
    return None
