"""An engine that is a process of ours, on this machine or another, as the server sees it: what it is asked, and what
it answers. Who starts the process, and starts it again, is a subclass's matter.

Neither torch nor transformers is loaded here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from semantic_parrot.core.engine.child import Child
from semantic_parrot.core.engine.messages import (
    Cancel,
    Command,
    Failed,
    Finished,
    Generate,
    GetStats,
    Options,
    Ready,
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
    Delta,
    Directions,
    Done,
    ModelInfo,
    Stats,
)
from semantic_parrot.core.errors import EngineFailed, from_code
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.request import Message, ModelRequest

_COUNTERS = ("prompt_tokens_computed", "prompt_tokens_reused", "kv_blocks_restored", "generated_tokens", "steps")


class ProcessEngine(ABC):
    """`names`: what requests may call the model. `options`: how its processes are set up. `running`: requests that it
    has. Owned by the event loop."""

    def __init__(self, name: str, names: Sequence[str], options: Options) -> None:
        self.name = name
        # What has no prefix cache can't share one between tenants.
        self.abilities: frozenset[Ability] = frozenset(() if options.prefix_cache else ("salt",))
        self.window = options.max_batch
        self.running = 0
        self._options = options
        self._names = tuple(names)
        self._model: ModelInfo | None = None
        self._calls: ToolFormat | None = None
        self._child: Child | None = None
        self._watchers: list[Callable[[], None]] = []
        self._ids = itertools.count(1)
        self._latest = Stats()
        self._before = Stats()  # counters of the processes that ended, as last reported

    @property
    def model(self) -> ModelInfo:
        """Known once the engine has started."""
        assert self._model is not None, "the engine has not been started"
        return self._model

    @property
    def healthy(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    @abstractmethod
    def trouble(self) -> str:
        """As in Engine."""

    @property
    def pid(self) -> int | None:
        """Of its process, on whatever machine, while there is one."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def watch(self, told: Callable[[], None]) -> None:
        self._watchers.append(told)

    def _changed(self) -> None:
        for told in self._watchers:
            told()

    def _took(self, child: Child, ready: Ready) -> None:
        """`child` is the process from now on."""
        self._child = child
        self._model = ModelInfo(self._names, ready.context)
        self._calls = None if ready.calls is None else FORMATS[ready.calls]

    def _ended(self) -> None:
        """The process is no more: what the next one counts is added to what was counted."""
        self._before = self._latest

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
        self.running += 1
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
            self.running -= 1
            child.forget(id)
            if not ended:
                child.send(Cancel(id))

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

    async def _ask_once(self, id: int, command: Command) -> Reply:
        child = self._up()
        try:
            reply = await child.ask(id, command).get()
        except asyncio.CancelledError:
            child.send(Cancel(id))  # a long text may wait to be tokenised
            raise
        finally:
            child.forget(id)
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.message, reply.where)
        return reply

    async def _stop(self, keeper: asyncio.Task[None] | None) -> None:
        """End who keeps the process, and the process."""
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._child is not None:
            await self._child.close()
            self._child = None

    def _up(self) -> Child:
        if self._child is None or not self._child.alive:
            raise EngineFailed(f"engine {self.name} is down: {self.trouble}")
        return self._child
