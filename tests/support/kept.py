"""A started engine that several runtimes use in turn: starting and closing it are the test's own business."""

from __future__ import annotations

from typing import Any

from semantic_parrot.core.engines.native import NativeEngine


class Kept:
    """Stands for `engine`, started by the test; a runtime neither starts nor closes it."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def start(self) -> None:
        await self.engine.forget_prefixes()

    async def close(self) -> None: ...
