"""`parrot serve` around scripted engines, for tests of the process itself: no model has to load.

A model directory named "stuck" answers once the process gets SIGUSR1, "broken" can't be loaded, "slow" never finishes
loading.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.server import serve
from semantic_parrot.server.cli import main


class _Broken(ScriptedEngine):
    async def start(self) -> None:
        raise ModelLoadError("broken: no config.json")


class _Stuck(ScriptedEngine):
    async def start(self) -> None:
        await super().start()
        assert self._gate is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._gate.set)


class _Slow(ScriptedEngine):
    async def start(self) -> None:
        sys.stderr.write("loading\n")
        await asyncio.Event().wait()


def build(options: serve.ServeOptions) -> list[ScriptedEngine]:
    if options.model == "broken":
        return [_Broken()]
    if options.model == "slow":
        return [_Slow()]
    if options.model == "stuck":
        return [_Stuck(gate=asyncio.Event())]
    return [ScriptedEngine() for _ in range(options.natives)]


if __name__ == "__main__":
    run = serve.serve
    serve.serve = lambda options: run(options, build)  # type: ignore[assignment]
    main()
