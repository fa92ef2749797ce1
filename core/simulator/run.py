"""A workload against modelled engines: the server's own analysis and scheduler, on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any
from zlib import crc32

from semantic_parrot.core.analysis import Analysis, Planned, Skeleton, boundaries
from semantic_parrot.core.analysis.pieces import Var, length_of
from semantic_parrot.core.scheduling import Decider, Placement, Policy, Task
from semantic_parrot.core.simulator.engine import Cache, Costs, Sequence, SimEngine
from semantic_parrot.core.simulator.workloads import CHARACTERS, SimCall, SimProgram, text


@dataclass(slots=True, eq=False)
class _Job:
    """A program under way. `paths`: seconds of the critical path to each output's end, at an idle engine's costs."""

    program: SimProgram
    analysis: Analysis = field(default_factory=Analysis)
    missing: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[SimCall]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    paths: dict[str, float] = field(default_factory=dict)
    left: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One program's end: seconds it took, its critical-path bound, and the tokens it was given."""

    app: str
    tenant: str
    took: float
    bound: float
    tokens: int


class Simulation:
    """`calls`: how many are begun at most. Deterministic: nothing here draws a number or reads a clock."""

    def __init__(self, programs: Iterator[SimProgram], engines: int, calls: int, costs: Costs, **policy: Any) -> None:
        self.costs = costs
        self.decider = Decider([64] * engines, Policy(**policy))
        self.engines = [SimEngine(costs, Cache(costs.cache)) for _ in range(engines)]
        self.outcomes: list[Outcome] = []
        self.waits: list[float] = []
        self.placed = [0] * engines
        self.reused = self.prompted = self.now = 0.0
        self.calls = 0
        self._programs = programs
        self._most = calls
        self._ever = Cache(1e9)  # what an engine that forgets nothing would reuse
        self._events: list[tuple[float, int, Any]] = []
        self._order = count()
        self._due = [float("inf")] * engines
        self._running: dict[int, tuple[_Job, SimCall, Placement | None, int]] = {}

    def run(self) -> None:
        self._arrive()
        while self._events:
            self.now, _, what = heappop(self._events)
            if isinstance(what, SimProgram):
                self._start(what)
                self._arrive()
            elif isinstance(what, int):
                self._tick(what)
            else:
                self._submit(*what)
            for placement in self.decider.dispatch(self.now):
                self._admit(placement)

    def _at(self, when: float, what: Any) -> None:
        heappush(self._events, (when, next(self._order), what))

    def _arrive(self) -> None:
        program = next(self._programs, None) if self.calls < self._most else None
        if program is not None:
            self.calls += len(program.calls)
            self._at(program.at, program)

    def _start(self, program: SimProgram) -> None:
        job = _Job(program, left=len(program.calls))
        estimates = self.decider.estimates
        planned = []
        for call in program.calls:
            inputs = tuple(dict.fromkeys(piece.name for piece in call.pieces if isinstance(piece, Var)))
            prompt = _skeleton(call)
            planned.append(Planned(call.output, inputs, estimates.seconds(prompt), prompt))
            job.missing[call.output] = len(inputs)
            for name in inputs:
                job.readers.setdefault(name, []).append(call)
        due = {} if program.deadline is None else dict.fromkeys(program.stated, self.now + program.deadline)
        job.analysis.join(planned, program.stated, now=self.now, due=due)
        for call in program.calls:
            if not job.missing[call.output]:
                self._submit(job, call)

    def _submit(self, job: _Job, call: SimCall) -> None:
        step = job.analysis.step(call.output)
        prompt = step.planned.skeleton
        assert prompt is not None
        names = boundaries(prompt.pieces, job.values.__getitem__)
        chars = sum(len(p if isinstance(p, str) else job.values[p.name]) for p in call.pieces)
        estimates = self.decider.estimates
        per = estimates.per_character
        output = estimates.output(prompt)
        task = Task(
            objective=step.objective,
            tenant=job.program.tenant,
            prompt=chars * per,
            output=output,
            seconds=output * estimates.costs.step(1),
            latest=step.latest,
            group=step.group,
            prefixes=names,
            held=tuple(length_of(name) * per for name in names),
            site=prompt.site,
            chars=chars,
        )
        self.decider.submit(task, self.now)
        self._running[task.ticket] = (job, call, None, chars)

    def _admit(self, placement: Placement) -> None:
        task = placement.task
        job, call, _, chars = self._running[task.ticket]
        self._running[task.ticket] = (job, call, placement, chars)
        engine = self.engines[placement.engine]
        prompt = chars / CHARACTERS
        ends = tuple(length_of(name) / CHARACTERS for name in task.prefixes)
        cached = min(engine.cache.touch(task.prefixes, ends), prompt - 1)
        ever = min(self._ever.touch(task.prefixes, ends), prompt - 1)
        fill = (prompt - ever) * self.costs.prefill
        before = max((job.paths[p.name] for p in call.pieces if isinstance(p, Var)), default=0.0)
        job.paths[call.output] = before + call.after + fill + max(0, call.tokens - 1) * self.costs.step(1)
        self.waits.append(placement.queued)
        self.placed[placement.engine] += 1
        self.reused += cached
        self.prompted += prompt
        engine.admit(Sequence(task.ticket, prompt, prompt - cached, call.tokens, self.now, cached), self.now)
        self._wake(placement.engine)

    def _wake(self, index: int) -> None:
        """The engine's next event may be another one now."""
        when = self.engines[index].next()
        if when != self._due[index]:
            self._due[index] = when
            if when < float("inf"):
                self._at(when, index)

    def _tick(self, index: int) -> None:
        engine = self.engines[index]
        if self._due[index] != self.now:
            return  # an event that the batch has overtaken
        self._due[index] = float("inf")
        engine.advance(self.now)
        filled, ended = engine.due()
        if filled is not None:
            placement = self._running[filled.id][2]
            assert placement is not None
            self.decider.filled(placement, self.now)
        if ended is not None:
            self._finish(engine, ended)
        self._wake(index)

    def _finish(self, engine: SimEngine, sequence: Sequence) -> None:
        job, call, placement, chars = self._running.pop(sequence.id)
        assert placement is not None
        prompt = round(chars / CHARACTERS)
        self.decider.release(placement, self.now)
        usage = (prompt, round(sequence.cached), call.tokens)
        self.decider.measured(placement, usage, sequence.began - sequence.admitted, self.now - sequence.began)
        job.values[call.output] = text(call.output, call.tokens)
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
            program = job.program
            took, tokens = self.now - program.at, sum(c.tokens for c in program.calls)
            self.outcomes.append(Outcome(program.app, program.tenant, took, max(job.paths.values()), tokens))


def _skeleton(call: SimCall) -> Skeleton:
    constants = [piece for piece in call.pieces if isinstance(piece, str)]
    # A call site is named by its first constant: the texts of documents stand for variables here.
    return Skeleton(call.pieces, hash_of(constants[0]), sum(map(len, constants)), None, False)


def hash_of(text: str) -> int:
    """Of what names a generated text, without its number and its padding."""
    return crc32(text.partition(":")[0].rstrip("0123456789.").encode())
