"""An engine without a model: answers that are a function of the prompt, at a pace that the test sets.

For tests of what stands above engines; what an engine itself must do is tested on the native one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Hashable

from semantic_parrot.core.engines.protocol import (
    UNDIRECTED,
    Ability,
    Delta,
    Directions,
    Done,
    Keep,
    ModelInfo,
    Stats,
    Usage,
)
from semantic_parrot.core.errors import EngineFailed, ParrotError
from semantic_parrot.core.request import Message, ModelRequest


def text_of(request: ModelRequest) -> str:
    """All text of a request, as the answer depends on it."""
    if request.messages is None:
        return request.prompt or ""
    return "\n".join(f"{m.role}: {m.content}" for m in request.messages)


def answer(request: ModelRequest) -> str:
    """Three words that no other prompt gets."""
    digest = hashlib.sha256(text_of(request).encode()).hexdigest()
    return f"w{digest[:4]} w{digest[4:8]} w{digest[8:12]}"


class ScriptedEngine:
    """`answers`: the text for a request. `gate`: if given, each answer waits for it between its first word and its
    second. `fail`: the error to raise for a request, or None. `seen` lists the requests in the order they came;
    `running` and `most` count them."""

    def __init__(
        self,
        names: tuple[str, ...] = ("scripted", "default"),
        *,
        name: str = "scripted-0",
        window: int = 64,
        gate: asyncio.Event | None = None,
        fail: Callable[[ModelRequest], ParrotError | None] = lambda _: None,
        answers: Callable[[ModelRequest], str] = answer,
    ) -> None:
        self.name = name
        self.abilities: frozenset[Ability] = frozenset(("prefill-ahead", "salt"))
        self.window = window
        self.model = ModelInfo(names, 4096)
        self._healthy = self._coming = False
        self._watchers: list[Callable[[], None]] = []
        self.seen: list[ModelRequest] = []
        self.directed: list[Directions] = []
        self.prefills: list[tuple[Hashable, ModelRequest | None]] = []
        self.kept: list[tuple[Keep, ...]] = []  # of each of `prefills`
        self.salts: list[str] = []  # likewise
        self.running = self.most = self.cancelled = 0
        self._gate = gate
        self._fail = fail
        self._answers = answers
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self.healthy = True

    async def close(self) -> None:
        self.healthy = False

    @property
    def healthy(self) -> bool:
        return self._healthy

    @healthy.setter
    def healthy(self, up: bool) -> None:
        self._healthy = up
        self._changed_health()

    @property
    def trouble(self) -> str:
        return "" if self.healthy else "it is down"

    @property
    def coming(self) -> bool:
        return self._coming and not self._healthy

    @coming.setter
    def coming(self, soon: bool) -> None:
        self._coming = soon
        self._changed_health()

    def watch(self, told: Callable[[], None]) -> None:
        self._watchers.append(told)

    def _changed_health(self) -> None:
        for told in self._watchers:
            told()

    def _count(self, change: int) -> None:
        self.running += change
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(self, running: int) -> None:
        """Wait until exactly `running` requests are in the engine."""
        while self.running != running:
            await self._changed.wait()

    async def until_asked(self, prefills: int) -> None:
        """Wait until `prefills` prompts or more are to be filled ahead."""
        while sum(request is not None for _, request in self.prefills) < prefills:
            await self._changed.wait()

    def check(self, request: ModelRequest) -> None:
        pass

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        self.seen.append(request)
        self.directed.append(directions)
        self._count(1)
        self.most = max(self.most, self.running)
        try:
            if not self.healthy:
                raise EngineFailed("the engine is down")
            await asyncio.sleep(0)
            error = self._fail(request)
            if error is not None:
                raise error
            text = self._answers(request)
            words = text.split(" ")
            prompt = len(text_of(request).split())
            if request.sampling.max_tokens is not None:
                words = words[: request.sampling.max_tokens]
            for i, word in enumerate(words):
                if i == 1 and self._gate is not None:
                    await self._gate.wait()
                yield Delta(f" {word}" if i else word, Usage(prompt, 0, i + 1))
            reason = "stop" if " ".join(words) == text else "length"
            yield Done(" ".join(words), reason, Usage(prompt, 0, len(words)))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self._count(-1)

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        self.salts.append(salt)
        self.prefills.append((key, request))
        self.kept.append(keep)
        self._tell()

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        text = content if isinstance(content, str) else " ".join(m.content for m in content)
        return [len(word) for word in text.split()]

    async def forget_prefixes(self) -> None:
        pass

    async def stats(self) -> Stats:
        return Stats(running=self.running)
