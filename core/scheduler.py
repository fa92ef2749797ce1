"""The asyncio side of the scheduler: tasks wait here for their turn on an engine; `core.scheduling` decides.

Tasks wait here, not in an engine: an engine is given no more than its window, so that a task which matters more
can still go first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from semantic_parrot.core.engines.protocol import Done, Elastic, Engine, PrefixChange, Telling
from semantic_parrot.core.errors import EngineFailed, InternalError, ParrotError
from semantic_parrot.core.scheduling import Decider, Placement, Policy, Task

logger = logging.getLogger(__name__)


class Scheduler:
    """The engines that serve one model, and the tasks that wait for them. Owned by the event loop. `telling`:
    the engines that tell which prefixes they hold."""

    def __init__(self, engines: Sequence[Engine], policy: Policy | None = None) -> None:
        self.engines = tuple(engines)
        preempting = [i for i, engine in enumerate(engines) if "preemption" in engine.abilities]
        self.decider = Decider([engine.window for engine in engines], policy, preempting)
        self._turns: dict[int, tuple[Task, asyncio.Future[Placement]]] = {}
        self._soon = False
        self.telling: set[int] = set()
        for index, engine in enumerate(self.engines):
            self.decider.fleet.set_up(index, engine.healthy)
            engine.watch(partial(self._told, index))
            if isinstance(engine, Elastic):
                engine.scale_by(self.waiting)
            if isinstance(engine, Telling):
                self.telling.add(index)
                engine.watch_prefixes(partial(self._prefixes_changed, index))

    def waiting(self) -> int:
        """Calls that have no turn yet."""
        return len(self._turns)

    async def acquire(self, task: Task) -> Placement:
        """Where the task may run, once it has its turn; `release` must follow. Raises EngineFailed, if no engine is up,
        and InternalError."""
        turn: asyncio.Future[Placement] = asyncio.get_running_loop().create_future()
        self.decider.submit(task, time.monotonic())
        self._turns[task.ticket] = task, turn
        self._dispatch_soon()  # what becomes ready at once is placed at once: a task group, say
        try:
            return await turn
        except asyncio.CancelledError:
            if task.state == "waiting":
                del self._turns[task.ticket]
                self.decider.cancel(task)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise

    def filled(self, placement: Placement) -> None:
        """The first token of the task's answer has come."""
        self.decider.filled(placement, time.monotonic())

    def release(self, placement: Placement, done: Done | None = None) -> None:
        """The task has left its engine; `done`: with an answer, from which costs are learned."""
        self.decider.release(placement, time.monotonic())
        if done is not None:
            usage, timings = done.usage, done.timings
            counts = (usage.prompt, usage.cached, usage.completion)
            self.decider.measured(placement, counts, timings.prefill, timings.decode)
        self._dispatch()

    def promote(self, task: Task) -> None:
        """A latency call waits for the same answer as `task`."""
        self.decider.promote(task)
        self._dispatch()

    def elsewhere(self, lost: int) -> bool:
        """Whether a task that engine `lost` failed to finish can be run again."""
        return any(e.healthy or e.coming for i, e in enumerate(self.engines) if i != lost)

    def _expects(self) -> bool:
        """Whether an engine will be up soon. Who has but one is told at once that it is down."""
        return len(self.engines) > 1 and any(engine.coming for engine in self.engines)

    def _told(self, index: int) -> None:
        """The engine's health has changed."""
        self.decider.fleet.set_up(index, self.engines[index].healthy)
        self._dispatch()

    def _prefixes_changed(self, index: int, change: PrefixChange) -> None:
        """The engine holds other prefixes than it did."""
        residency = self.decider.fleet.residency
        residency.hold(index, change.added, time.monotonic())
        residency.lose(index, change.evicted)

    def _dispatch(self) -> None:
        self._soon = False
        if not self.decider.fleet.up and not self._expects():
            for task in self.decider.waiting.tasks():
                self.decider.cancel(task)
            self._refuse(EngineFailed("no engine is up; try again shortly"))
            return
        try:
            placed = self.decider.dispatch(time.monotonic())
        except Exception:
            logger.exception("the scheduler failed: all that waits is refused")
            self.decider.restart(self._turns.keys(), time.monotonic())
            self._refuse(InternalError("the scheduler failed while the call waited"))
            return
        for placement in placed:
            _, turn = self._turns.pop(placement.task.ticket)
            if turn.done():  # its waiter is just being cancelled
                self.decider.release(placement, time.monotonic())
                self._dispatch_soon()
            else:
                turn.set_result(placement)

    def _dispatch_soon(self) -> None:
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _refuse(self, error: ParrotError) -> None:
        """Whoever waits is told `error`."""
        for task, turn in self._turns.values():
            task.state = "ended"
            if not turn.done():
                turn.set_exception(type(error)(error.message))
        self._turns.clear()
