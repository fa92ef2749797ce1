"""Which waiting task goes to which engine, now. The paper's Algorithm 1, with one measure for all of its preferences.

Take the first task in order; with it, the unit it belongs to: its task group, or else the queued sharers of its
prefix. Place the unit's members one by one, each where it adds least to the time of what runs there and its own
(`Fleet.best`): siblings share an engine as long as the prefill that the shared prefix saves outweighs the slower
steps of a fuller batch, and split by that measure, and by capacity, when it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from semantic_parrot.core.scheduling.estimates import Estimates
from semantic_parrot.core.scheduling.fleet import Fleet
from semantic_parrot.core.scheduling.task import RANKS, Placement, Policy, Task, Why
from semantic_parrot.core.scheduling.waiting import Waiting


class Decider:
    """`windows`: how many tasks each engine takes at once; `preempting`: engines that order by rank and pause beyond a
    cap. No clock: `now` never decreases between calls."""

    def __init__(self, windows: Sequence[int], policy: Policy | None = None, preempting: Collection[int] = ()) -> None:
        self.policy = policy or Policy()
        self.estimates = Estimates()
        self.fleet = Fleet(windows, self.policy, self.estimates.costs, preempting)
        self.waiting = Waiting(self.policy)
        self._tickets = itertools.count(1)

    def submit(self, task: Task, now: float) -> None:
        """`task` waits from now on; `dispatch` says when it goes."""
        assert task.state == "new"
        task.ticket, task.arrived, task.state = next(self._tickets), now, "waiting"
        self.waiting.push(task)

    def dispatch(self, now: float) -> list[Placement]:
        """All that can go now, in order. Each must be followed by `release`."""
        placed: list[Placement] = []
        while self.fleet.first:
            head = self.waiting.head(now, roomy=bool(self.fleet.roomy))
            if head is None:
                break
            first = len(placed)
            for task, why in self.waiting.together(head):
                placement = self._place(task, why, now)
                if placement is None:
                    break
                placed.append(placement)
            unit = placed[first:]
            for placement in unit:
                placement.together = len(unit)
                if len(unit) > 1:
                    placement.why = unit[-1].why  # of those that were taken along
        return placed

    def _place(self, task: Task, why: str, now: float) -> Placement | None:
        rank = 0 if self.waiting.presses(task, now) else RANKS[task.objective]
        found = self.fleet.best(task, rank, self.waiting.batch / len(self.fleet.engines))
        if found is None:
            return None
        engine, cached = found
        task.state = "running"
        self.waiting.place(task, now)
        task.charged = task.prompt - cached + task.output
        self.waiting.served(task, task.charged, starts=True)
        fresh = (engine.wait if rank else engine.wait_first) + engine.costs.prefill * (task.prompt - cached)
        cap = engine.within if task.solo and self.policy.on("batch-cap") else None
        beside = engine.decoding if cap is None or not engine.preempts else min(engine.decoding, cap - 1)
        seconds = fresh + engine.costs.step(beside + 1) * task.output
        why_here = _reason(why, cached)
        placement = Placement(
            task, engine.index, why_here, cached, seconds, now, now - task.arrived, engine.n + 1, rank, cap
        )
        if self.policy.on("critical-path"):
            placement.priority, placement.slack = task.priority, task.latest - now
        placement.room = len(self.fleet.roomy if rank else self.fleet.first)
        self.fleet.add(engine, placement, now)
        return placement

    def filled(self, placement: Placement, now: float) -> None:
        """The first token of its answer has come."""
        self.fleet.filled(placement, now)

    def release(self, placement: Placement, now: float) -> None:
        """It has left its engine: finished, failed or cancelled."""
        assert placement.task.state == "running"
        placement.task.state = "ended"
        placement.batch = round(self.fleet.drop(placement, now))

    def measured(self, placement: Placement, usage: tuple[int, int, int], prefill: float, decode: float) -> None:
        """What it took (after `release`): `usage` is prompt, cached and completion tokens; seconds by the engine."""
        task, (prompt, cached, completion) = placement.task, usage
        self.estimates.saw(task.site, task.chars, prompt, completion)
        self.fleet.learn(placement, usage, prefill, decode)
        self.waiting.served(task, prompt - cached + completion - task.charged)

    def queue(self, tenant: str) -> tuple[int, int, float, float]:
        """(tasks of the tenant that wait, all that wait, seconds until those of the tenant have gone, until all have):
        predicted from what they take on an idle engine, and what an engine gains by doing a batch of them at once."""
        speed = self.fleet.speed or 1.0
        own, seconds, share = self.waiting.queue(tenant)
        every = self.waiting.seconds / speed
        return own, len(self.waiting), min(seconds / share / speed, every), every

    def cancel(self, task: Task) -> None:
        """A waiting task waits no longer."""
        assert task.state == "waiting"
        task.state = "ended"
        self.waiting.remove(task)

    def restart(self, tickets: Collection[int], now: float) -> None:
        """After a fault in `dispatch`, which may be half done: nothing waits any more, and those of `tickets` that had
        their place already have left it. What runs goes on."""
        self.waiting = Waiting(self.policy)
        for engine in self.fleet.engines:
            for placement in [p for ticket, p in engine.running.items() if ticket in tickets]:
                self.release(placement, now)

    def promote(self, task: Task) -> None:
        """Somebody else waits for the same answer, with a latency objective."""
        if task.state == "waiting" and task.objective != "latency":
            self.waiting.promote(task)


def _reason(why: str, cached: float) -> Why:
    if why == "task-group":
        return "task-group"
    if why == "queued-sharers":
        return "queued-sharers"
    return "prefix-held" if cached > 0 else "least-impact"
