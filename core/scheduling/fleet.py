"""The engines as the scheduler sees them: what runs where, which prefixes are there, and what one more task costs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from semantic_parrot.core.scheduling.costs import CostModel
from semantic_parrot.core.scheduling.task import Placement, Policy, Task

#: Prefixes that an engine is taken to hold, at most. One that is gone is found out, and forgotten, at its first miss.
PREFIXES = 4096


@dataclass(slots=True, eq=False)
class EngineState:
    """`solo`: latency calls that cap the batch; `batch`: running tasks that a cap keeps out; `filling`: prompt tokens
    still to be prefilled. What one more task of p uncached prompt and o output tokens costs, for itself and for
    all that runs here, is wait + fill * p + emit * o seconds; a solo call that caps the batch takes `lost` of the
    engine's throughput with it, for as long as it runs."""

    index: int
    window: int
    costs: CostModel = field(default_factory=CostModel)
    up: bool = True
    n: int = 0
    solo: int = 0
    batch: int = 0
    filling: float = 0.0
    cap: int = 0
    wait: float = 0.0
    fill: float = 0.0
    emit: float = 0.0
    lost: float = 0.0
    area: float = 0.0
    since: float = 0.0
    running: dict[int, Placement] = field(default_factory=dict)
    prefixes: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def integrate(self, now: float) -> float:
        """The integral of the batch over time until `now`."""
        self.area += self.n * (now - self.since)
        self.since = now
        return self.area

    def reckon(self, policy: Policy) -> None:
        """Set what one more task costs. Prefill takes the task's time, the engine's (from whoever comes next: else each
        sibling would fill the shared prefix on an engine of its own) and that of all who decode; a longer step slows
        all who decode."""
        costs, n = self.costs, self.n
        target = policy.slowdown * costs.step(1) if policy.tpot is None else policy.tpot
        within = min(self.window, costs.batch_within(target))
        capping = policy.on("batch-cap")
        self.cap = within if self.solo and capping else self.window
        self.wait = costs.prefill * self.filling
        self.fill = costs.prefill * (2 + n)
        self.emit = costs.step(n + 1) + costs.slope * n
        kept = within / costs.step(within) * costs.step(self.window) / self.window
        self.lost = 0.0 if self.solo or not capping else max(0.0, 1 - kept) * costs.step(n + 1)


class Fleet:
    """`open`: engines with room in their window. `roomy`: those of them whose cap is not reached either."""

    def __init__(self, windows: Sequence[int], policy: Policy) -> None:
        self.policy = policy
        self.engines = [EngineState(i, window) for i, window in enumerate(windows)]
        self.open: dict[int, EngineState] = {}
        self.roomy: dict[int, EngineState] = {}
        self._holders: dict[int, set[int]] = {}
        for engine in self.engines:
            self._changed(engine)

    def best(self, task: Task, queued: float, *, capped: bool) -> tuple[EngineState, float] | None:
        """(the engine where `task` does least harm, itself included, prompt tokens it expects to find there).

        `queued`: waiting tasks per engine that a cap would keep out; `capped`: leave out engines whose cap is reached.
        """
        room = self.roomy if capped else self.open
        held = self._held(task)
        prompt, output, solo = task.prompt, task.output, task.solo
        best: EngineState | None = None
        least = 0.0
        for index, engine in room.items():
            fresh = prompt - held[index] if index in held else prompt
            cost = engine.wait + engine.fill * fresh + engine.emit * output
            if solo and engine.lost:
                cost += engine.lost * output * (queued + engine.batch)
            if best is None or cost < least:
                best, least = engine, cost
        return None if best is None else (best, held.get(best.index, 0.0))

    def _held(self, task: Task) -> dict[int, float]:
        """The prompt tokens that each engine holds, where it holds any."""
        found: dict[int, float] = {}
        if self.policy.on("prefix-placement"):
            for i in range(len(task.prefixes) - 1, -1, -1):
                holders = self._holders.get(task.prefixes[i])
                if holders:
                    for index in holders - found.keys():
                        found[index] = min(task.held[i], task.prompt)
        return found

    def add(self, engine: EngineState, placement: Placement, now: float) -> None:
        task = placement.task
        placement.area = engine.integrate(now)
        engine.n += 1
        engine.solo += task.solo
        engine.batch += task.waits
        placement.ahead = engine.filling
        placement.filling = max(0.0, task.prompt - placement.cached)
        engine.filling += placement.filling
        engine.running[task.ticket] = placement
        for name in task.prefixes:
            engine.prefixes[name] = None
            engine.prefixes.move_to_end(name)
            self._holders.setdefault(name, set()).add(engine.index)
        while len(engine.prefixes) > PREFIXES:
            self._forget(engine, next(iter(engine.prefixes)))
        self._changed(engine)

    def filled(self, placement: Placement, now: float) -> None:
        """Its first token has come."""
        if placement.filled is None:
            engine = self.engines[placement.engine]
            placement.filled = now
            placement.area = engine.integrate(now)  # the batch of the decoding alone
            engine.filling = max(0.0, engine.filling - placement.filling)
            self._changed(engine)

    def drop(self, placement: Placement, now: float) -> float:
        """The task has left its engine; the mean batch since its first token."""
        engine = self.engines[placement.engine]
        self.filled(placement, now)
        area = engine.integrate(now) - placement.area
        took = now - (placement.filled or now)
        mean = area / took if took > 0 else float(engine.n)
        del engine.running[placement.task.ticket]
        engine.n -= 1
        engine.solo -= placement.task.solo
        engine.batch -= placement.task.waits
        self._changed(engine)
        return max(1.0, mean)

    def missed(self, placement: Placement) -> None:
        """The engine did not have the prefix after all."""
        for name in placement.task.prefixes:
            if name in self.engines[placement.engine].prefixes:
                self._forget(self.engines[placement.engine], name)

    def forget(self, index: int) -> None:
        """All that the engine was taken to hold."""
        for name in tuple(self.engines[index].prefixes):
            self._forget(self.engines[index], name)

    def set_up(self, index: int, up: bool) -> None:
        engine = self.engines[index]
        if engine.up != up:
            engine.up = up
            self.forget(index)
            self._changed(engine)

    def _forget(self, engine: EngineState, name: int) -> None:
        del engine.prefixes[name]
        holders = self._holders[name]
        holders.discard(engine.index)
        if not holders:
            del self._holders[name]

    def _changed(self, engine: EngineState) -> None:
        engine.reckon(self.policy)
        for room, most in ((self.open, engine.window), (self.roomy, engine.cap)):
            if engine.up and engine.n < most:
                room[engine.index] = engine
            else:
                room.pop(engine.index, None)
