"""One replica of a Ray engine: a place that a process in the cluster takes, while the load asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semantic_parrot.core.engine.child import Child
from semantic_parrot.core.engine.messages import Options, Ready
from semantic_parrot.core.engines.hope import Hope
from semantic_parrot.core.engines.protocol import ModelInfo, ModelLoadError
from semantic_parrot.core.engines.tree_engine import TreeEngine

if TYPE_CHECKING:
    from semantic_parrot.core.engines.ray.pool import RayPool

log = logging.getLogger(__name__)


class RayEngine(TreeEngine):
    """`pool`: places its processes, and says whether it is wanted. A process that is lost, alone or with its node, ends
    what it had with EngineFailed; another one is placed as soon as there is room. One that is not wanted any more takes
    no new requests, and ends when those it has have ended.

    Owned by the event loop."""

    def __init__(self, name: str, names: Sequence[str], options: Options, pool: RayPool) -> None:
        super().__init__(name, names, options)
        self.pool = pool
        self.wanted = False
        self._keeper: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._stage = "it has not been started"
        self._hope = Hope(self._give_up)

    @property
    def alive(self) -> bool:
        """Whether it has a process, wanted or not."""
        return super().healthy

    @property
    def healthy(self) -> bool:
        return self.wanted and self.alive

    @property
    def coming(self) -> bool:
        return self._keeper is not None and self.wanted and not self.alive and not self._hope.lost

    @property
    def trouble(self) -> str:
        if not self.wanted and self._keeper is not None:
            return "the load does not ask for it"
        return "" if self.healthy else self._stage

    def scale_by(self, waiting: Callable[[], int]) -> None:
        self.pool.waiting.add(waiting)

    async def start(self) -> None:
        """Returns when a replica of the pool is up. Raises ModelLoadError."""
        await self.pool.start()

    async def close(self) -> None:
        self._hope.over()
        await self._stop(self._keeper)
        self._keeper = None
        await self.pool.closed(self)

    # For the pool.

    def open(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    def want(self, wanted: bool) -> None:
        if wanted != self.wanted:
            self.wanted = wanted
            self._stirred.set()
            self._changed()

    def stir(self) -> None:
        """Have it look whether there is something to do."""
        self._stirred.set()

    def learn(self, model: ModelInfo) -> None:
        """What the pool's replicas serve, for one that has not had a process yet."""
        self._model = self._model or ModelInfo(self._names, model.context)

    def say(self, stage: str) -> None:
        self._stage = stage

    # Its keeper.

    async def _keep(self) -> None:
        while True:
            await self._until(lambda: self.wanted)
            try:
                started = await self._start_one()
            except ModelLoadError as error:
                self._hope.failed(error)
                self._stage = str(error)
                self._changed()
                if not self.pool.failed(error):
                    log.error("engine %s can't be started: %s", self.name, error)
                await asyncio.sleep(self._hope.pause)
                continue
            self._hope.over()
            if started is not None:
                await self._live(*started)

    async def _start_one(self) -> tuple[Child, Ready] | None:
        """None: it is not wanted any more. Raises ModelLoadError."""
        starting = asyncio.create_task(self.pool.spawn(self))
        starting.add_done_callback(lambda _: self.stir())
        self._hope.down()
        try:
            await self._until(lambda: starting.done() or not self.wanted)
            return starting.result() if starting.done() else None
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    def _give_up(self) -> None:
        log.error("engine %s is not waited for any more: %s", self.name, self._stage)
        self._changed()

    async def _live(self, child: Child, ready: Ready) -> None:
        """From when the process is ready until it is gone."""
        self._took(child, ready)
        child.ended.add_done_callback(lambda _: self.stir())
        self._changed()
        self.pool.up(self)
        await self._until(lambda: not child.alive or not (self.wanted or self.running))
        lost = not child.alive
        if lost:
            self._stage = "its process or its node was lost"
            log.error("engine %s was lost, or its node; another one is placed", self.name)
        self._ended()
        self._changed()
        await child.close()

    async def _until(self, so: Callable[[], bool]) -> None:
        while not so():
            self._stirred.clear()
            await self._stirred.wait()
