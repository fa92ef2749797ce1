"""The native engine's handle in the server process: starts the engine's process, and restarts it.

Neither torch nor transformers is loaded here; only the child loads them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from semantic_parrot.core.engine.child import spawn
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.process_engine import ProcessEngine
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.core.request import ModelRequest

logger = logging.getLogger(__name__)

#: Seconds before a restart, by how many in a row failed to load.
BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0, 30.0)
#: Failures in a row after which nobody waits for the next try.
HOPELESS = 6


class NativeEngine(ProcessEngine):
    """An engine process of our own for one model directory.

    `names`: what requests may call the model. `deterministic`: logits that do not depend on what else is in the
    batch. `threads`: of the child's torch (default: see `threads.py`). `kv_tokens`: size of the KV cache (default:
    by free memory). `kv_offload_tokens`: evicted KV that a temporary file keeps, to be copied back (default: as much
    as the cache holds, if the disk has plenty of room; 0: none), on a GPU pinned memory (default: none). `max_batch`:
    sequences that decode together; also the window. `chunk`: tokens a step. `dtype`: "auto" or a torch dtype's name.
    `device`: "auto", "cpu", "cuda". `kernels`: "torch", "c" (compiled here, on a CPU), "triton" (on a CPU interpreted,
    for tests: slow), "auto": Triton on a GPU, C on a CPU, torch where these can't be had. `overlap`: launch a step
    before the last one's tokens are read (default: on a GPU).
    `public`: requests whose beginnings, up to the first UNKNOWN, are filled at the start and kept for all salts.

    Owned by the event loop. A crash of the process ends what is in flight with EngineFailed; the handle is unhealthy,
    and refuses with EngineFailed, until a new process has loaded the model.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        names: Sequence[str],
        deterministic: bool = False,
        name: str = "native-0",
        threads: int | None = None,
        kv_tokens: int | None = None,
        kv_offload_tokens: int | None = None,
        max_batch: int = 64,
        chunk: int = 512,
        prefix_cache: bool = True,
        dtype: str = "auto",
        device: str = "auto",
        kernels: str = "auto",
        overlap: bool | None = None,
        public: Sequence[ModelRequest] = (),
    ) -> None:
        options = Options(
            model_dir=str(model_dir),
            deterministic=deterministic,
            threads=threads or default_threads(),
            kv_tokens=kv_tokens,
            kv_offload_tokens=kv_offload_tokens,
            max_batch=max_batch,
            chunk=chunk,
            prefix_cache=prefix_cache,
            dtype=dtype,
            device=device,
            kernels=kernels,
            overlap=overlap,
            public=tuple(public),
        )
        super().__init__(name, names, options)
        self._keeper: asyncio.Task[None] | None = None
        self._up_again = asyncio.Event()
        self._failures = 0  # in a row, to load the model again

    @property
    def trouble(self) -> str:
        if self.healthy or self._keeper is None:
            return "" if self.healthy else "it is not running"
        return "its process died, and is being restarted" if self.coming else "its process can't be restarted"

    @property
    def coming(self) -> bool:
        return self._keeper is not None and not self.healthy and self._failures < HOPELESS

    @property
    def pid(self) -> int | None:
        """Of the engine's process, while there is one."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def recovered(self) -> None:
        """Returns once the engine is healthy (at once, if it is)."""
        while not self.healthy:
            self._up_again.clear()
            await self._up_again.wait()

    async def start(self) -> None:
        self._took(*await spawn(self._options))
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._child is not None:
            await self._child.close()
            self._child = None

    async def _keep(self) -> None:
        """Replace a child that died by a new one, for as long as the engine is open."""
        while True:
            assert self._child is not None
            await self._child.ended
            self._ended()
            self._changed()
            logger.error("engine %s died (%s); restarting it", self.name, await self._child.reap())
            while not self._child.alive:
                await asyncio.sleep(BACKOFF[min(self._failures, len(BACKOFF) - 1)])
                try:
                    self._took(*await spawn(self._options))
                    self._failures = 0
                    self._up_again.set()
                    self._changed()
                except ModelLoadError as error:
                    self._failures += 1
                    self._changed()
                    logger.error("engine %s can't be restarted: %s", self.name, error)
