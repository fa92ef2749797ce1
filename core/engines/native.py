"""The native engine's handle in the server process: starts the engine's process, talks to it, restarts it.

Neither torch nor transformers is loaded here; only the child loads them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from semantic_parrot.core.engine.child import Child, spawn
from semantic_parrot.core.engine.messages import (
    Cancel,
    Command,
    Failed,
    Finished,
    ForgetPrefixes,
    Generate,
    GetOutline,
    GetStats,
    Options,
    Outlined,
    Prefill,
    Reply,
    Report,
    Text,
    Tokenize,
    Tokens,
)
from semantic_parrot.core.engine.tool_format import ToolFormat
from semantic_parrot.core.engine.tool_formats import FORMATS
from semantic_parrot.core.engines.calling import calling
from semantic_parrot.core.engines.choices import answer
from semantic_parrot.core.engines.protocol import (
    UNDIRECTED,
    Ability,
    CachedPrefix,
    Delta,
    Directions,
    Done,
    Keep,
    ModelInfo,
    ModelLoadError,
    Stats,
)
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.core.errors import EngineFailed, from_code
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.request import Message, ModelRequest

logger = logging.getLogger(__name__)

_COUNTERS = ("prompt_tokens_computed", "prompt_tokens_reused", "kv_blocks_restored", "generated_tokens", "steps")
_BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0, 30.0)  # seconds before a restart, by how many in a row failed to load
_HOPELESS = 6  # failures in a row after which nobody waits for the next try


class NativeEngine:
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
        self.name = name
        self.abilities: frozenset[Ability] = frozenset(
            ("preemption", "prefill-ahead", "retention", "salt") if prefix_cache else ("preemption", "salt")
        )
        self.window = max_batch
        self._options = Options(
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
        self._names = tuple(names)
        self._model: ModelInfo | None = None
        self._calls: ToolFormat | None = None
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._up_again = asyncio.Event()
        self._failures = 0  # in a row, to load the model again
        self._watchers: list[Callable[[], None]] = []
        self._ids = itertools.count(1)
        self._ahead: dict[Hashable, int] = {}
        self._latest = Stats()
        self._before = Stats()  # counters of the processes that died, as last reported

    @property
    def model(self) -> ModelInfo:
        """Known once the engine has started."""
        assert self._model is not None, "the engine has not been started"
        return self._model

    @property
    def healthy(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def trouble(self) -> str:
        if self.healthy or self._keeper is None:
            return "" if self.healthy else "it is not running"
        return "its process died, and is being restarted" if self.coming else "its process can't be restarted"

    @property
    def coming(self) -> bool:
        return self._keeper is not None and not self.healthy and self._failures < _HOPELESS

    def watch(self, told: Callable[[], None]) -> None:
        self._watchers.append(told)

    def _changed(self) -> None:
        for told in self._watchers:
            told()

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
        self._child, ready = await spawn(self._options)
        self._model = ModelInfo(self._names, ready.context)
        self._calls = None if ready.calls is None else FORMATS[ready.calls]
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._child is not None:
            await self._child.close()
            self._child = None

    def check(self, request: ModelRequest) -> None:
        """Every option is obeyed; what only this model lacks (tools, say) its process says."""

    def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        return answer(request, lambda one: self._one(one, directions))

    def _one(self, request: ModelRequest, directions: Directions) -> AsyncGenerator[Delta | Done, None]:
        items = self._text(request, directions)
        # Without a format the engine refuses tools, with a better message.
        return items if request.tools is None or self._calls is None else calling(items, request.tools, self._calls)

    async def _text(self, request: ModelRequest, directions: Directions) -> AsyncGenerator[Delta | Done, None]:
        child, id = self._up(), next(self._ids)
        replies = child.ask(id, Generate(id, request, time.monotonic(), directions))
        ended, told = False, list[TokenLogprob]()
        try:
            while True:
                match await replies.get():
                    case Text(_, text, usage, logprobs):
                        told += logprobs
                        yield Delta(text, usage, logprobs=logprobs)
                    case Finished(_, done):
                        ended = True
                        wanted = request.sampling.logprobs is not None
                        yield replace(done, logprobs=tuple(told)) if wanted else done
                        return
                    case Failed(_, code, message, where):
                        ended = True
                        raise from_code(code, message, where)
        finally:
            child.forget(id)
            if not ended:
                child.send(Cancel(id))

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        if self._child is None:
            return
        if request is not None:
            id = self._ahead.setdefault(key, next(self._ids))
            self._child.send(Prefill(id, request, keep, salt))
        elif key in self._ahead:
            self._child.send(Cancel(self._ahead.pop(key)))

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        id = next(self._ids)
        reply = await self._ask_once(id, Tokenize(id, content))
        assert isinstance(reply, Tokens)
        return reply.tokens

    async def stats(self) -> Stats:
        id = next(self._ids)
        reply = await self._ask_once(id, GetStats(id))
        assert isinstance(reply, Report)
        before = self._before
        counters = {name: getattr(before, name) + getattr(reply.stats, name) for name in _COUNTERS}
        self._latest = replace(reply.stats, **counters)
        return self._latest

    async def forget_prefixes(self) -> None:
        id = next(self._ids)
        await self._ask_once(id, ForgetPrefixes(id))

    async def outline(self, *, text: bool) -> tuple[CachedPrefix, ...]:
        id = next(self._ids)
        reply = await self._ask_once(id, GetOutline(id, text))
        assert isinstance(reply, Outlined)
        return reply.prefixes

    async def _ask_once(self, id: int, command: Command) -> Reply:
        child = self._up()
        try:
            reply = await child.ask(id, command).get()
        finally:
            child.forget(id)
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.message, reply.where)
        return reply

    def _up(self) -> Child:
        if self._child is None or not self._child.alive:
            raise EngineFailed(f"engine {self.name} is down; it is being restarted")
        return self._child

    async def _keep(self) -> None:
        """Replace a child that died by a new one, for as long as the engine is open."""
        while True:
            assert self._child is not None
            await self._child.ended
            logger.error("engine %s died (%s); restarting it", self.name, await self._child.reap())
            self._before = self._latest
            self._changed()
            while not self._child.alive:
                await asyncio.sleep(_BACKOFF[min(self._failures, len(_BACKOFF) - 1)])
                try:
                    self._child, _ = await spawn(self._options)
                    self._failures = 0
                    self._up_again.set()
                    self._changed()
                except ModelLoadError as error:
                    self._failures += 1
                    self._changed()
                    logger.error("engine %s can't be restarted: %s", self.name, error)
