"""What one more task costs on each engine, in columns: ten thousand engines are compared in some thirty microseconds.

So every engine is looked at for every decision, and the choice is that of the definition (`EngineState.cost`), to the
last bit: there is no candidate that was not considered.
"""

from __future__ import annotations

from collections.abc import Set
from math import inf

import numpy as np

from semantic_parrot.core.scheduling.residency import Residency
from semantic_parrot.core.scheduling.state import EngineState
from semantic_parrot.core.scheduling.task import Task


class Board:
    """A column for each engine; the rows are what `EngineState.cost` reads. `held`: prompt tokens that are taken to be
    resident there, of the task that is being placed."""

    def __init__(self, engines: int) -> None:
        self._rows = np.zeros((11, engines))
        (
            self._wait_first, self._wait, self._wait_full_first, self._wait_full, self._fill, self._emit,
            self._emit_solo, self._lost, self._batch, self._trust, self._speed,
        ) = self._rows  # fmt: skip
        self._held = np.zeros(engines)
        self._cost = np.zeros(engines)
        self._part = np.zeros(engines)

    def put(self, e: EngineState, *, first: bool, roomy: bool) -> None:
        """`e` has changed; it has room for a task of rank 0, and for those of other ranks."""
        self._rows[:, e.index] = (
            e.wait_first if first else inf, e.wait if roomy else inf,
            e.wait_first if e.up else inf, e.wait if e.up else inf,
            e.fill, e.emit, e.emit_solo, e.lost, e.batch, e.trust, e.speed if e.up else 0.0,
        )  # fmt: skip

    @property
    def speed(self) -> float:
        """Of all engines that are up: see EngineState."""
        return float(self._speed.sum())

    def credit(self, task: Task, residency: Residency | None) -> None:
        """Set `held`: what each engine holds of the longest of the prompt's prefixes that is there, or was filled."""
        held, most = self._held, task.prompt
        held.fill(0.0)
        if residency is not None:
            for name, tokens in zip(task.prefixes, task.held, strict=True):  # shortest first: the longest counts
                holders = residency.holders(name)
                if holders is not None:
                    held[np.frombuffer(holders, np.int64)] = min(tokens, most)
        if task.filled is not None:
            index, tokens = task.filled
            held[index] = min(max(tokens, float(held[index])), most)

    def least(
        self, task: Task, rank: int, queued: float | None, without: Set[int], near: int, *, full: bool = False
    ) -> int:
        """The engine with room for `rank`, or with `full` any that is up, where `task` costs least: of equal ones
        `near`, or else the first; none of `without`. -1 if there is none. `queued`: see EngineState.cost."""
        cost, part = self._cost, self._part
        np.multiply(self._held, self._trust, out=cost)
        np.subtract(task.prompt, cost, out=cost)
        np.multiply(self._fill, cost, out=cost)
        if full:
            wait = self._wait_full if rank else self._wait_full_first
        else:
            wait = self._wait if rank else self._wait_first
        np.add(wait, cost, out=cost)  # inf where there is no room
        np.multiply(self._emit_solo if task.solo else self._emit, task.output, out=part)
        np.add(cost, part, out=cost)
        if task.solo and queued is not None:
            np.add(self._batch, queued, out=part)
            np.multiply(self._lost * task.output, part, out=part)
            np.add(cost, part, out=cost)
        for index in without:
            cost[index] = inf
        index = int(cost.argmin())
        if cost[index] == inf:
            return -1
        return near if 0 <= near < len(cost) and cost[near] == cost[index] else index
