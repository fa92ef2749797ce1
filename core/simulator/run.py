"""A workload against modelled engines: the server's own analysis and scheduler, on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from semantic_parrot.core.analysis import Planned
from semantic_parrot.core.analysis.pieces import Var, length_of
from semantic_parrot.core.hints import Hints
from semantic_parrot.core.scheduling import Decider, Placement, Policy
from semantic_parrot.core.simulator.cache import Cache
from semantic_parrot.core.simulator.costs import Costs
from semantic_parrot.core.simulator.engine import Sequence, SimEngine
from semantic_parrot.core.simulator.jobs import Job, Running, skeleton_of
from semantic_parrot.core.simulator.measures import Measures
from semantic_parrot.core.simulator.retention import Retention, longer
from semantic_parrot.core.simulator.workloads import CHARACTERS, SimCall, SimProgram, text

#: Tokens of lately used prefixes that the bounds take an engine to have kept.
EVER = 5e7


class Simulation:
    """`calls`: how many are begun at most. Deterministic: nothing here draws a number or reads a clock."""

    def __init__(self, programs: Iterator[SimProgram], engines: int, calls: int, costs: Costs, **policy: Any) -> None:
        self.costs = costs
        self.decider = Decider([costs.window] * engines, Policy(**policy), range(engines))
        self.engines = [SimEngine(costs, Cache(costs.cache, costs.kv)) for _ in range(engines)]
        self.measures = Measures()
        self.placed = [0] * engines
        self.now = 0.0
        self.began = 0
        self._programs = programs
        self._most = calls
        self._ever = Cache(EVER)
        self._events: list[tuple[float, int, Any]] = []
        self._order = count()
        self._due = [inf] * engines
        self._running: dict[int, Running] = {}
        self._queued: dict[str, int] = {}  # by tenant
        self._retention = Retention(on=self.decider.policy.on("retention"))

    def run(self, until: float = inf) -> None:
        """To the end of all, or of the `until` first seconds."""
        self._arrive()
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heappop(self._events)
            if isinstance(what, SimProgram):
                self._start(what)
                self._arrive()
            elif isinstance(what, int):
                self._tick(what)
            else:
                self._submit(*what)
            if not self._events or self._events[0][0] > self.now:  # what comes in an instant is placed at once
                for placement in self.decider.dispatch(self.now):
                    self._admit(placement)

    def _at(self, when: float, what: Any) -> None:
        heappush(self._events, (when, next(self._order), what))

    def _arrive(self) -> None:
        program = next(self._programs, None) if self.began < self._most else None
        if program is not None:
            self.began += len(program.calls)
            self._at(program.at, program)

    def _start(self, program: SimProgram) -> None:
        job = Job(program, next(self._order), left=len(program.calls))
        estimates = self.decider.estimates
        planned = []
        for call in program.calls:
            inputs = tuple(dict.fromkeys(piece.name for piece in call.pieces if isinstance(piece, Var)))
            prompt = skeleton_of(call)
            planned.append(Planned(call.output, inputs, estimates.seconds(prompt), prompt))
            job.missing[call.output] = len(inputs)
            for name in inputs:
                job.readers.setdefault(name, []).append(call)
        due = {} if program.deadline is None else dict.fromkeys(program.stated, self.now + program.deadline)
        job.analysis.join(planned, program.stated, now=self.now, due=due)
        self._retention.join(job, planned)
        for call in program.calls:
            if not job.missing[call.output]:
                self._submit(job, call)

    def _submit(self, job: Job, call: SimCall) -> None:
        step = job.analysis.step(call.output)
        prompt = step.planned.skeleton
        assert prompt is not None
        objectives = self.decider.policy.on("objectives")
        hints = Hints(
            step.objective, tenant=job.program.tenant, latest=step.latest, group=step.group, values=job.values
        )
        task = hints.task(prompt, self.decider.estimates, self.now, objectives=objectives)
        self.decider.submit(task, self.now)
        self._queued[task.tenant] = self._queued.get(task.tenant, 0) + 1
        self._running[task.ticket] = Running(job, call, prompt, task.chars / CHARACTERS)

    def _admit(self, placement: Placement) -> None:
        task = placement.task
        own = self._running[task.ticket]
        own.placement = placement
        self._queued[task.tenant] -= 1
        ends = tuple(length_of(name) / CHARACTERS for name in task.prefixes)
        own.fresh = own.prompt - min(self._ever.hit(task.prefixes, ends), own.prompt - 1)
        self._ever.put(task.prefixes, ends)
        self.measures.waits.append(placement.queued)
        self.placed[placement.engine] += 1
        directed = self.decider.policy.on("preemption")
        rank, cap = (placement.rank, placement.cap) if directed else (0, None)
        order = (-placement.priority, self.now + placement.slack)
        sequence = Sequence(
            task.ticket, own.prompt, own.call.tokens, self.now, rank, cap, order, task.prefixes, ends, own.job.id
        )
        self.engines[placement.engine].admit(sequence, self.now)
        self._wake(placement.engine)

    def _wake(self, index: int) -> None:
        """The engine's next event may be another one now."""
        when = self.engines[index].next()
        if when != self._due[index]:
            self._due[index] = when
            if when < inf:
                self._at(when, index)

    def _tick(self, index: int) -> None:
        engine = self.engines[index]
        if self._due[index] != self.now:
            return  # an event that the batch has overtaken
        self._due[index] = inf
        engine.advance(self.now)
        filled, ended = engine.due()
        if filled is not None:
            placement = self._running[filled.id].placement
            assert placement is not None
            self.decider.filled(placement, self.now)
        if ended is not None:
            self._finish(engine, ended)
        self._wake(index)

    def _finish(self, engine: SimEngine, sequence: Sequence) -> None:
        own = self._running.pop(sequence.id)
        job, call, placement = own.job, own.call, own.placement
        assert placement is not None
        self.decider.release(placement, self.now)
        own.fresh = min(own.fresh, own.prompt - sequence.cached)  # who came later may have filled it before
        usage = (round(own.prompt), round(sequence.cached), call.tokens)
        self.decider.measured(placement, usage, sequence.began - sequence.admitted, self.now - sequence.began)
        job.values[call.output] = text(call.output, call.tokens)
        self._keep(engine, own, sequence, job.values[call.output])
        self.measures.ended(own, sequence, self.now, self.costs, contended=all(self._queued.values()))
        for reader in job.readers.get(call.output, ()):
            job.missing[reader.output] -= 1
            if not job.missing[reader.output]:
                if reader.after:
                    self._at(self.now + reader.after, (job, reader))
                else:
                    self._submit(job, reader)
        job.analysis.finish(call.output)
        job.left -= 1
        if not job.left:
            self.measures.finished(job, self.now, len(self.engines), self.costs)

    def _keep(self, engine: SimEngine, own: Running, sequence: Sequence, answer: str) -> None:
        """The answer's KV stays with its prompt's, as long as it is worth keeping."""
        names, ends = sequence.names, sequence.ends
        whole = bool(names) and length_of(names[-1]) == sequence.prompt * CHARACTERS
        if whole:
            names = (*names, longer(names[-1], answer))
            ends = (*ends, length_of(names[-1]) / CHARACTERS)
            engine.cache.put(names, ends, sequence.owner)
            self._ever.put(names, ends)
        self._retention.ended(engine.cache, own, names, whole=whole)
