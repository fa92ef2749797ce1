"""The engines as the scheduler sees them: what runs where, and which prefixes are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from semantic_parrot.core.scheduling.costs import DECAY, CostModel
from semantic_parrot.core.scheduling.state import EngineState
from semantic_parrot.core.scheduling.task import Placement, Policy, Task

#: Prefixes that an engine is taken to hold, at most. One that is gone is found out, and forgotten, at its first miss.
PREFIXES = 4096


class Fleet:
    """`first`: engines with room for a task of rank 0. `roomy`: those with room for what a cap keeps out. `costs`:
    of the model on any engine; they stand for an engine's own until it has some. `preempting`: see EngineState."""

    def __init__(
        self, windows: Sequence[int], policy: Policy, costs: CostModel, preempting: Collection[int] = ()
    ) -> None:
        self.policy = policy
        self.costs = costs
        able = preempting if policy.on("preemption") else ()
        self.engines = [EngineState(i, window, costs, i in able) for i, window in enumerate(windows)]
        self.first: dict[int, EngineState] = {}
        self.roomy: dict[int, EngineState] = {}
        self._holders: dict[int, set[int]] = {}
        self._capped: set[int] = set()  # where a further latency call keeps its TPOT beside those that cap already
        for engine in self.engines:
            self._changed(engine)

    def best(
        self, task: Task, rank: int, queued: float, among: Mapping[int, EngineState] | None = None
    ) -> tuple[EngineState, float] | None:
        """(the engine where `task` does least harm, itself included, prompt tokens it expects to find there).

        `queued`: waiting tasks per engine that a cap would keep out. `among` these, the first of equal ones (None:
        those with room).
        """
        room = (self.roomy if rank else self.first) if among is None else among
        if task.lost:
            room = {index: engine for index, engine in room.items() if index not in task.lost} or room
        held = self._held(task)
        prompt, output, solo = task.prompt, task.output, task.solo
        spares = solo and bool(self._capped)  # an engine that is free of caps may stay so
        best: EngineState | None = None
        least = 0.0
        for index, engine in room.items():
            fresh = prompt - held[index] * engine.trust if index in held else prompt
            cost = (engine.wait if rank else engine.wait_first) + engine.fill * fresh
            cost += (engine.emit_solo if solo else engine.emit) * output
            if spares and engine.lost:
                cost += engine.lost * output * (queued + engine.batch)
            if best is None or cost < least:
                best, least = engine, cost
        return None if best is None else (best, held.get(best.index, 0.0) * best.trust)

    def _held(self, task: Task) -> dict[int, float]:
        """The prompt tokens that each engine holds, where it holds any."""
        found: dict[int, float] = {}
        if self.policy.on("prefix-placement"):
            for i in range(len(task.prefixes) - 1, -1, -1):
                holders = self._holders.get(task.prefixes[i])
                if holders:
                    found = dict.fromkeys(holders, min(task.held[i], task.prompt)) | found  # the longest counts
        if task.filled is not None:
            index, tokens = task.filled
            found[index] = min(max(tokens, found.get(index, 0.0)), task.prompt)
        return found

    def add(self, engine: EngineState, placement: Placement, now: float) -> None:
        task = placement.task
        placement.area = engine.integrate(now)
        engine.n += 1
        engine.solo += task.solo
        engine.batch += placement.rank > 0
        placement.ahead = engine.filling if placement.rank or not engine.preempts else engine.urgent
        placement.filling = max(0.0, task.prompt - placement.cached)
        engine.filling += placement.filling
        engine.urgent += 0.0 if placement.rank else placement.filling
        engine.running[task.ticket] = placement
        placement.used = max((engine.prefixes.get(name, 0.0) for name in task.prefixes), default=0.0)
        self.hold(engine.index, task.prefixes, now)
        self._changed(engine)

    def hold(self, index: int, prefixes: Sequence[int], now: float) -> None:
        """The engine has these, or will soon."""
        engine = self.engines[index]
        for name in prefixes:
            engine.prefixes[name] = now
            engine.prefixes.move_to_end(name)
            self._holders.setdefault(name, set()).add(index)
        while len(engine.prefixes) > PREFIXES:
            self._forget(engine, next(iter(engine.prefixes)))

    def filled(self, placement: Placement, now: float) -> None:
        """Its first token has come."""
        if placement.filled is None:
            engine = self.engines[placement.engine]
            placement.filled = now
            placement.area = engine.integrate(now)  # the batch of the decoding alone
            placement.paused = engine.paused
            engine.filling = max(0.0, engine.filling - placement.filling)
            engine.urgent = max(0.0, engine.urgent - (0.0 if placement.rank else placement.filling))
            self._changed(engine)

    def drop(self, placement: Placement, now: float) -> float:
        """The task has left its engine; the mean batch since its first token."""
        engine = self.engines[placement.engine]
        self.filled(placement, now)
        area = engine.integrate(now) - placement.area
        took = now - (placement.filled or now)
        mean = area / took if took > 0 else float(engine.decoding)
        placement.steady = placement.rank == 0 or engine.paused - placement.paused <= 0
        del engine.running[placement.task.ticket]
        engine.n -= 1
        engine.solo -= placement.task.solo
        engine.batch -= placement.rank > 0
        self._changed(engine)
        return max(1.0, mean)

    def learn(self, placement: Placement, usage: tuple[int, int, int], prefill: float, decode: float) -> None:
        """What it took: prompt, cached and completion tokens; seconds. Who had to pause says nothing of a step."""
        engine, (prompt, cached, completion) = self.engines[placement.engine], usage
        if engine.costs is self.costs:
            engine.costs = self.costs.copy()
        for costs in (engine.costs, self.costs):
            costs.prefilled(prompt - cached + placement.ahead, prefill)
            if placement.steady:
                costs.decoded(placement.batch, completion - 1, decode)
        if placement.cached > 0:
            engine.expected = engine.expected * DECAY + placement.cached
            engine.found = engine.found * DECAY + min(cached, placement.cached)
            engine.trust = engine.found / engine.expected
            if cached < placement.cached / 2:
                self._evicted(engine, placement.used)
        for other in self.engines:
            if other is engine or other.costs is self.costs:  # it would look slow for ever, and never be tried
                self._changed(other)

    def _evicted(self, engine: EngineState, used: float) -> None:
        """What was last used at `used` is not there any more: nor is what was used before."""
        for name in [name for name, last in engine.prefixes.items() if last < used]:
            self._forget(engine, name)

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
        if engine.up and 0 < engine.solo < engine.within:
            self._capped.add(engine.index)
        else:
            self._capped.discard(engine.index)
        for rank, room in ((0, self.first), (1, self.roomy)):
            if engine.up and engine.takes(rank):
                room[engine.index] = engine
            else:
                room.pop(engine.index, None)
