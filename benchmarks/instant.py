"""An engine that answers at once, so that nothing but what stands around it is timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import get_args

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
from semantic_parrot.core.request import Message, ModelRequest


class InstantEngine:
    """Answers every request with one word, and notes when each came and went."""

    name = "instant"
    window = 1024
    model = ModelInfo(("default",), 1 << 20)
    healthy, coming, trouble = True, False, ""
    abilities: frozenset[Ability] = frozenset(get_args(Ability))

    def __init__(self) -> None:
        self.came: list[float] = []
        self.went: list[float] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def forget_prefixes(self) -> None: ...
    def check(self, request: ModelRequest) -> None: ...
    def watch(self, told: Callable[[], None]) -> None: ...

    def prefill(
        self, key: object, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = ""
    ) -> None: ...

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        self.came.append(time.perf_counter())
        await asyncio.sleep(0)
        self.went.append(time.perf_counter())
        yield Done("word", "stop", Usage(1, 0, 1))

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        return []

    async def stats(self) -> Stats:
        return Stats()
