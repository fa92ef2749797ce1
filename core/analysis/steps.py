"""Objectives, task groups, deadlines and remaining paths of the open calls of a session, as its programs join.

Objectives (paper, §5.2) are deduced from those stated for outputs, in reverse topological order: what an output
needs, directly or not, inherits its objective, and the strictest wins where a variable is read twice. A call that
nothing stated reaches is a latency call: somebody may be waiting for it.

Everything here is incremental: a program that joins costs time in its own edges and in those upstream where
something changes. Classes only ever get stricter, so each edge carries at most two changes. Remaining paths are carried
upstream within a budget proportional to the new edges; once what was cut short amounts to half of the open calls, one
pass sets all of them right. Either way the cost is amortised O(new edges), up to the sort of that pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from math import inf

from semantic_parrot.core.analysis.order import in_order
from semantic_parrot.core.analysis.step import Class, Group, Job, Planned, Step

_STRICT: dict[Class | None, int] = {None: 0, "throughput": 1, "deadline": 2, "latency": 3}

#: Steps upstream that may be visited for each new edge to carry remaining paths.
BUDGET = 4


class Analysis:
    """The open calls of one session. Owned by the event loop; no clock, no I/O."""

    def __init__(self) -> None:
        self._open: dict[str, Step] = {}
        self._groups = itertools.count(1)
        self._owed = 0

    def __len__(self) -> int:
        return len(self._open)

    def step(self, output: str) -> Step:
        """The open call that produces `output`."""
        return self._open[output]

    def find(self, output: str) -> Step | None:
        """The same; None if it is not open, or never was."""
        return self._open.get(output)

    def upstream(self, output: str) -> Iterator[Step]:
        """The open calls that `output` needs, directly or not, itself included, each once."""
        todo, seen = [output] if output in self._open else [], set[str]()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                step = self._open[name]
                yield step
                todo.extend(p.planned.output for p in step.producers if not p.done)

    def join(
        self,
        planned: Sequence[Planned],
        stated: Mapping[str, Class],
        *,
        now: float,
        due: Mapping[str, float] | None = None,
    ) -> None:
        """Add calls (a DAG together with the open ones); `stated` and `due` (absolute seconds) are by variable, and
        may name ones that are open already."""
        job = Job(now)
        steps = [self._add(call, job) for call in in_order(planned)]
        old: dict[int, Step] = {}
        for name in dict.fromkeys((*stated, *(due or ()))):
            step = self._open.get(name)
            if step is None:
                continue  # it has its value already
            asked: Class | None = stated.get(name, "deadline" if due and name in due else None)
            if _STRICT[asked] > step.strict:
                step.strict, step.cause = _STRICT[asked], name
            step.due = min(step.due, (due or {}).get(name, inf))
            old[id(step)] = step
        for step in reversed(steps):
            old.pop(id(step), None)
            for producer in step.producers:
                if self._relax(producer, step) and producer.job is not job:
                    old[id(producer)] = producer
            if len(step.producers) > 0:
                self._group(step)
        job.length = max((step.remaining for step in steps), default=0.0)
        self._upstream(list(old.values()), BUDGET * (1 + sum(len(step.producers) for step in steps)))

    def finish(self, output: str) -> None:
        """The call that produces `output` has ended, one way or another."""
        step = self._open.pop(output, None)
        if step is not None:
            step.done = True
            step.producers = []
            step.consumers = []

    def _add(self, planned: Planned, job: Job) -> Step:
        find = self._open.get
        producers = [step for name in planned.inputs if (step := find(name)) is not None]
        depth = max([step.depth for step in producers]) + 1 if producers else 0
        step = self._open.get(planned.output)
        if step is not None:  # a map or branch that its body now stands in for
            step.planned, step.job, step.producers = planned, job, producers
        else:
            step = self._open[planned.output] = Step(planned, job, producers, depth, planned.seconds)
        for producer in producers:
            producer.consumers.append(step)
        return step

    @staticmethod
    def _relax(producer: Step, step: Step) -> bool:
        """Carry what `step` asks to one of its producers; whether that changed anything."""
        changed = False
        if step.strict > producer.strict:
            producer.strict, producer.cause, changed = step.strict, step.cause, True
        due = step.due - step.planned.seconds
        if due < producer.due:
            producer.due, changed = due, True
        path = producer.planned.seconds + step.remaining
        if path > producer.remaining:
            producer.remaining, changed = path, True
        return changed

    def _upstream(self, todo: list[Step], budget: int) -> None:
        """Carry changes on from `todo`: classes and deadlines all the way, remaining paths as far as `budget` goes."""
        edges, spent = budget // BUDGET, 0
        while todo:
            step = todo.pop()
            for producer in step.producers:
                if producer.done:
                    continue
                spent += 1
                before = producer.strict, producer.due
                if self._relax(producer, step) and (spent <= budget or before != (producer.strict, producer.due)):
                    todo.append(producer)
        if spent > budget:
            self._owed += edges
            if 2 * self._owed >= len(self._open):
                self._owed = 0
                for step in sorted(self._open.values(), key=lambda step: -step.depth):
                    for producer in step.producers:
                        self._relax(producer, step)

    def _group(self, consumer: Step) -> None:
        """Parallel producers of `consumer` form a task group; one that is alone stands in its consumer's own stage."""
        stages: dict[int, list[Step]] = {}
        for step in consumer.producers:
            if not step.done:
                stages.setdefault(step.depth, []).append(step)
        for depth, stage in stages.items():
            root = consumer if len(stage) > 1 else consumer.root
            if root is None:
                continue
            group = root.stages.setdefault(depth, Group(next(self._groups))).whole()
            for step in stage:
                if step.member is None:
                    step.root, step.member = root, group
                    group.size += step.planned.skeleton is not None
                elif (other := step.member.whole()) is not group:  # they have two consumers in common, by now
                    other.into = group
                    group.size += other.size
