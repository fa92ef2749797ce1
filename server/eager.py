"""What the OpenAI routes have in common: one call's answer, as it comes from the runtime."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import InternalError

Items = AsyncGenerator[Delta | Done, None]


async def next_item(items: Items) -> Delta | Done:
    async for item in items:
        return item
    raise InternalError("the engine's answer had no end")


async def last_item(items: Items) -> Done:
    while not isinstance(item := await next_item(items), Done):
        pass
    return item
