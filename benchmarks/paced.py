"""An engine without a model that says a token to everybody at every step, as a batch does; and a server of it.

    TOKENS=1 STEP=0 WINDOW=1024 CONFIG=parrot.toml python benchmarks/paced.py

STEP: seconds between two tokens; 0: at once. WINDOW: requests at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from instant import InstantEngine
from semantic_parrot.core.config import Config, read_config
from semantic_parrot.core.engines.protocol import UNDIRECTED, Delta, Directions, Done, Usage
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.server.options import merge
from semantic_parrot.server.serve import serve


class PacedEngine(InstantEngine):
    """Answers of `max_tokens` tokens, else of `tokens`; `step`: seconds between two of them."""

    def __init__(self, tokens: int = 1, step: float = 0.0, window: int = 1024) -> None:
        super().__init__()
        self.window = window
        self._tokens, self._step = tokens, step
        self._stepped = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._step:
            self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._step, loop.time())
            await asyncio.sleep(due - loop.time())
            stepped, self._stepped = self._stepped, asyncio.Event()
            stepped.set()

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        tokens = request.sampling.max_tokens or self._tokens
        for i in range(tokens):
            await (self._stepped.wait() if self._step else asyncio.sleep(0))
            yield Delta(" word", Usage(10, 0, i + 1))
        yield Done(" word" * tokens, "length", Usage(10, 0, tokens))


def main() -> int:
    """Serve one on a free port, as `parrot serve --announce` does, until standard input ends."""
    tokens, step = int(os.environ.get("TOKENS", "1")), float(os.environ.get("STEP", "0"))
    window, file = int(os.environ.get("WINDOW", "1024")), os.environ.get("CONFIG")
    flags = {"port": 0, "announce": True, "exit_with_parent": True}
    options = merge(read_config(Path(file)) if file else Config(), flags, set(), set())
    return serve(options, lambda _: [PacedEngine(tokens, step, window)])


if __name__ == "__main__":
    sys.exit(main())
