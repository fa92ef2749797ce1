"""The engines as the scheduler sees them: what runs where, and which prefixes are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence, Set
from typing import TYPE_CHECKING

from semantic_parrot.core.scheduling.costs import DECAY, CostModel
from semantic_parrot.core.scheduling.residency import Residency
from semantic_parrot.core.scheduling.state import EngineState
from semantic_parrot.core.scheduling.task import Placement, Policy, Task

if TYPE_CHECKING:
    from semantic_parrot.core.scheduling.board import Board

#: So many engines are looked at one by one: a column for each pays when there are more.
FEW = 10
#: Engines without costs of their own that are reckoned again with each report of another's: all of a small fleet.
RECKONED = 16

NONE: frozenset[int] = frozenset()


class Fleet:
    """`first`: engines with room for a task of rank 0. `roomy`: those with room for what a cap keeps out. `up`: all
    that are. `costs`: of the model on any engine; they stand for an engine's own until it has some. `preempting`: see
    EngineState."""

    def __init__(
        self, windows: Sequence[int], policy: Policy, costs: CostModel, preempting: Collection[int] = ()
    ) -> None:
        self.policy = policy
        self.costs = costs
        able = preempting if policy.on("preemption") else ()
        self.engines = [EngineState(i, window, costs, i in able) for i, window in enumerate(windows)]
        self.first: set[int] = set()
        self.roomy: set[int] = set()
        self.residency = Residency(len(windows))
        self._places = policy.on("prefix-placement")
        self.up: set[int] = set()
        self._few = FEW
        self._board = _board(len(windows)) if len(windows) > FEW else None
        self._capped: set[int] = set()  # where a further latency call keeps its TPOT beside those that cap already
        self._untried = deque(self.engines)  # among others: those without costs of their own
        for engine in self.engines:
            self._changed(engine)

    @property
    def speed(self) -> float:
        """How many idle engines, each with one sequence, the fleet is worth when all of it is full."""
        return sum(engine.speed for engine in self.engines if engine.up) if self._board is None else self._board.speed

    def best(
        self, task: Task, rank: int, queued: float, *, without: Set[int] = NONE, near: int = -1, full: bool = False
    ) -> tuple[EngineState, float] | None:
        """(the engine with room where `task` does least harm, itself included, prompt tokens it expects to find there).

        `queued`: waiting tasks per engine that a cap would keep out. Of equal engines `near`, or else the first. None
        of `without`, nor of those that lost the task if there are others. `full`: any engine that is up has room.
        """
        room = self.up if full else self.roomy if rank else self.first
        if task.lost and not room <= without | set(task.lost):
            without = without | set(task.lost)
        spares = queued if self._capped else None  # an engine that is free of caps may stay so
        if self._board is None or len(room) <= self._few:
            index = self._least(task, rank, spares, room - without if without else room, near)
        else:
            self._board.credit(task, self.residency if self._places else None)
            index = self._board.least(task, rank, spares, without, near, full=full)
        return None if index < 0 else (self.engines[index], self._held(task, index) * self.engines[index].trust)

    def _least(self, task: Task, rank: int, queued: float | None, room: Set[int], near: int) -> int:
        """Which of `room` it is: the definition of what `Board.least` finds. -1 if there is none."""
        engines, prompt, output, solo = self.engines, task.prompt, task.output, task.solo
        best, least = -1, 0.0
        for index in room:
            cost = engines[index].cost(prompt, self._held(task, index), output, rank, solo, queued)
            if best < 0 or cost < least or (cost == least and best != near and (index == near or index < best)):
                best, least = index, cost
        return best

    def _held(self, task: Task, index: int) -> float:
        """The prompt tokens that the engine is taken to hold."""
        held = self.residency.longest(index, task.prefixes, task.held) if self._places else 0.0
        if task.filled is not None and task.filled[0] == index:
            held = max(held, task.filled[1])
        return min(held, task.prompt)

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
        placement.used = self.residency.last_used(engine.index, task.prefixes)
        self.residency.hold(engine.index, task.prefixes, now)
        self._changed(engine)

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
            if cached < placement.cached / 2:  # it was evicted, and so was what had been used before it
                self.residency.lose_before(engine.index, placement.used)
        self._changed(engine)
        for _ in range(min(RECKONED, len(self._untried))):
            other = self._untried.popleft()
            if other.costs is self.costs:  # it would look slow for ever, and never be tried
                self._changed(other)
                self._untried.append(other)

    def set_up(self, index: int, up: bool) -> None:
        engine = self.engines[index]
        if engine.up != up:
            engine.up = up
            self.residency.forget(index)
            self._changed(engine)

    def _changed(self, engine: EngineState) -> None:
        engine.reckon(self.policy)
        if engine.up and 0 < engine.solo < engine.within:
            self._capped.add(engine.index)
        else:
            self._capped.discard(engine.index)
        first, roomy = engine.up and engine.takes(0), engine.up and engine.takes(1)
        for here, room in ((first, self.first), (roomy, self.roomy), (engine.up, self.up)):
            if here:
                room.add(engine.index)
            else:
                room.discard(engine.index)
        if self._board is not None:
            self._board.put(engine, first=first, roomy=roomy)


def _board(engines: int) -> Board:
    """Only a large fleet needs numpy."""
    from semantic_parrot.core.scheduling.board import Board

    return Board(engines)
