"""Which ready task goes to which engine, in which order.

Tasks wait here, not in an engine: an engine is given no more than its window, so that a task which matters more
can still go first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence

from semantic_parrot.core.engines.protocol import Engine
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.program import Objective

_RANK: dict[Objective, int] = {"latency": 0, "throughput": 1}


class Scheduler:
    """The engines that serve one model, and the tasks that wait for them. Owned by the event loop."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        self._load = dict.fromkeys(range(len(engines)), 0)
        self._waiting: list[tuple[int, int, asyncio.Future[int]]] = []
        self._ticket = itertools.count()

    async def acquire(self, objective: Objective) -> int:
        """The index of the engine the task may run on, once it has its turn; `release` must follow.

        Latency before throughput, then first come, first served. Raises EngineFailed if no engine is up.
        """
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (_RANK[objective], next(self._ticket), turn))
        self._dispatch()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise

    def release(self, index: int) -> None:
        self._load[index] -= 1
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting:
            if self._waiting[0][2].done():  # cancelled while it waited
                heapq.heappop(self._waiting)
                continue
            up = [i for i, engine in enumerate(self.engines) if engine.healthy]
            if not up:
                heapq.heappop(self._waiting)[2].set_exception(EngineFailed("no engine is up; try again shortly"))
                continue
            index = min(up, key=lambda i: self._load[i] / self.engines[i].window)
            if self._load[index] >= self.engines[index].window:
                return
            self._load[index] += 1
            heapq.heappop(self._waiting)[2].set_result(index)
