"""The replicas of one engine in a Ray cluster: how many there are to be, and where their processes come from."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from semantic_parrot.core.engine.child import Child, environment, load
from semantic_parrot.core.engine.messages import Options, Ready
from semantic_parrot.core.engines.hope import PATIENCE, Lost
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.core.engines.ray.cluster import Cluster, NotPlaced
from semantic_parrot.core.engines.ray.demand import Demand
from semantic_parrot.core.engines.ray.engine import RayEngine
from semantic_parrot.core.engines.ray.messages import Needs
from semantic_parrot.core.engines.ray.replica import Replica

log = logging.getLogger(__name__)

#: Seconds after which it is said what the first replica waits for; between two looks at the load.
SOON, LOOK_SECONDS = 15.0, 1.0


class RayPool:
    """`replicas`: at least and at most so many. `needs`: of each. `name`, `names`, `options`: as of every engine.
    `scale_down_seconds`: of less load until there are less. `engines`: one for each replica that there may be.

    More are started when there are more calls than half of the windows of those there are; calls that wait count, of
    which the schedulers' `waiting` say how many there are. Owned by the event loop."""

    def __init__(
        self,
        address: str,
        replicas: tuple[int, int],
        needs: Needs,
        options: Options,
        *,
        name: str = "ray",
        names: Sequence[str] = (),
        scale_down_seconds: float = 60.0,
    ) -> None:
        least, most = replicas
        self.waiting: set[Callable[[], int]] = set()
        self._cluster = Cluster(address)
        self._least, self._needs, self._options = least, needs, options
        self._demand = Demand(least, most, max(1.0, options.max_batch / 2), scale_down_seconds)
        self.engines = tuple(RayEngine(f"{name}-{i}", names, options, self) for i in range(most))
        self._first: asyncio.Future[RayEngine] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._looker: asyncio.Task[None] | None = None
        self._closed: set[RayEngine] = set()

    async def start(self) -> None:
        """Returns when a replica is up. Raises ModelLoadError."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        self._first = asyncio.get_running_loop().create_future()
        for index, engine in enumerate(self.engines):
            engine.open()
            engine.want(index < self._least)
        patience = asyncio.get_running_loop().call_later(SOON, self._tell)
        try:
            async with asyncio.timeout(PATIENCE):
                first = await self._first
        except TimeoutError:
            raise ModelLoadError(f"no replica could be started in {PATIENCE:.0f} s: {self._why()}") from None
        finally:
            patience.cancel()
        for engine in self.engines:
            engine.learn(first.model)
        self._looker = asyncio.create_task(self._look(), name="looking at the load of a Ray engine")

    def _why(self) -> str:
        return "; ".join(sorted({engine.trouble for engine in self.engines if engine.wanted}))

    def _tell(self) -> None:
        log.warning("no replica is up yet: %s", self._why())

    async def closed(self, engine: RayEngine) -> None:
        """`engine` is; with the last one the cluster is left."""
        self._closed.add(engine)
        if len(self._closed) == len(self.engines):
            tasks = [task for task in (self._looker, self._starting) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cluster.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.scale(time.monotonic())

    def scale(self, now: float) -> None:
        """As many replicas as the load asks for."""
        load = sum(count() for count in self.waiting) + sum(engine.running for engine in self.engines)
        wanted = self._demand.replicas(now, load)
        # Those that are wanted stay so, before those that still have a process, and the busiest before the others.
        best = sorted(self.engines, key=lambda e: (e.wanted and e.alive, e.alive, e.wanted, e.running), reverse=True)
        for index, engine in enumerate(best):
            engine.want(index < wanted)
            engine.stir()

    # For the engines.

    def up(self, engine: RayEngine) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(engine)

    def failed(self, error: ModelLoadError) -> bool:
        """Whether the server does not start for that: it says why by itself. One that was lost as it loaded, and not
        for what it was to load, is placed again."""
        assert self._first is not None
        if not self._first.done() and (isinstance(error, NotPlaced) or not isinstance(error, Lost)):
            self._first.set_exception(error)
        return self._first.done() and not self._first.cancelled() and self._first.exception() is not None

    async def spawn(self, engine: RayEngine) -> tuple[Child, Ready]:
        """A process in the cluster that has loaded the model. Raises ModelLoadError, Lost for all but the model's."""
        engine.say(f"it waits for room in the Ray cluster at {self._cluster.address} ({self._needs})")
        replica = await self._cluster.place(replace(self._needs, env=environment({})))
        engine.say(f"it loads the model on {replica.host}")
        try:
            return await _load(replica, self._options)
        except BaseException:
            replica.kill()
            raise


async def _load(replica: Replica, options: Options) -> tuple[Child, Ready]:
    reader, writer, shift = await replica.connect()
    loading = asyncio.create_task(load(options, reader, writer))
    try:
        either: set[asyncio.Future[Any]] = {loading, replica.gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        ready = loading.result() if loading.done() else None
        if ready is None:
            why = replica.gone.result()
            raise Lost(f"the replica on {replica.host} was lost while it loaded {options.model_dir}: {why}")
    except BaseException:
        loading.cancel()
        writer.close()
        raise
    child = Child(replica, reader, writer, shift)
    replica.gone.add_done_callback(lambda _: child.lost())
    return child, ready
