"""An engine process on this machine, which the server starts, and starts again when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from semantic_parrot.core.engine.child import spawn
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.hope import Hope
from semantic_parrot.core.engines.process_engine import ProcessEngine
from semantic_parrot.core.engines.protocol import ModelLoadError

logger = logging.getLogger(__name__)


class KeptEngine(ProcessEngine):
    """A crash of the process ends what is in flight with EngineFailed; the handle is unhealthy, and refuses with
    EngineFailed, until a new process has loaded the model. Owned by the event loop."""

    def __init__(self, name: str, names: Sequence[str], options: Options) -> None:
        super().__init__(name, names, options)
        self._keeper: asyncio.Task[None] | None = None
        self._up_again = asyncio.Event()
        self._hope = Hope(self._changed)

    @property
    def trouble(self) -> str:
        if self.healthy or self._keeper is None:
            return "" if self.healthy else "it is not running"
        return "its process died, and is being restarted" if self.coming else "its process can't be restarted"

    @property
    def coming(self) -> bool:
        return self._keeper is not None and not self.healthy and not self._hope.lost

    async def recovered(self) -> None:
        """Returns once the engine is healthy (at once, if it is)."""
        while not self.healthy:
            self._up_again.clear()
            await self._up_again.wait()

    async def start(self) -> None:
        self._took(*await spawn(self._options))
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def close(self) -> None:
        self._hope.over()
        await self._stop(self._keeper)
        self._keeper = None

    async def _keep(self) -> None:
        """Replace a child that died by a new one, for as long as the engine is open."""
        while True:
            assert self._child is not None
            await self._child.ended
            self._hope.down()
            self._ended()
            self._changed()
            logger.error("engine %s died (%s); restarting it", self.name, await self._child.reap())
            while not self._child.alive:
                await asyncio.sleep(self._hope.pause)
                try:
                    self._took(*await spawn(self._options))
                    self._hope.over()
                    self._up_again.set()
                    self._changed()
                except ModelLoadError as error:
                    self._hope.failed(error)
                    self._changed()
                    logger.error("engine %s can't be restarted: %s", self.name, error)
