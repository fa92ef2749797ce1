"""`parrot serve` around an engine that takes its time, for benchmarks/soak.py: what is tested lies above engines.

Each execution is a line in the file that PARROT_SOAK_LOG names, as it begins: the answer that it will give.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator

from instant import InstantEngine
from semantic_parrot.core.engines.protocol import UNDIRECTED, Delta, Directions, Done, Engine, Usage
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.server import serve
from semantic_parrot.server.cli import main

WORDS = 4


class SlowEngine(InstantEngine):
    """Four words that only this prompt gets, and this seed if it is sampled, one in a quarter of a second on average: a
    server lives for about as long as an answer takes, so it is killed before, in the midst of and after answers."""

    def __init__(self) -> None:
        super().__init__()
        self._log = os.open(os.environ["PARROT_SOAK_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        assert request.messages is not None
        prompt = request.messages[-1].content
        seed = "" if request.sampling.temperature == 0 else str(request.sampling.seed)
        digest = hashlib.sha256((prompt + seed).encode()).hexdigest()
        words = [digest[4 * i : 4 * i + 4] for i in range(WORDS)]
        os.write(self._log, f"{' '.join(words)}\n".encode())
        for i, word in enumerate(words):
            await asyncio.sleep(int(word, 16) / 0xFFFF * 0.5)
            yield Delta(f" {word}" if i else word, Usage(1, 0, i + 1))
        yield Done(" ".join(words), "stop", Usage(1, 0, WORDS))


def build(options: serve.ServeOptions) -> list[Engine]:
    return [SlowEngine()]


if __name__ == "__main__":
    run = serve.serve
    serve.serve = lambda options: run(options, build)  # type: ignore[assignment]
    main()
