"""`transformers serve` with continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.peer import Peer, Setup
from peers.recipe import Recipe, Step, environment, pip

VERSION = "5.23.0"


def steps(folder: Path) -> Sequence[Step]:
    # torch by its exact version: an open range takes a newer one with CUDA, of several GB.
    packages = (f"transformers[serving]=={VERSION}", "accelerate", "torch==2.13.0")
    return [environment(folder), pip(folder, "1.5 GB, some 2 minutes", *packages)]


class Transformers(Peer):
    name = "transformers"
    recipe = Recipe(VERSION, steps)

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        argv = [str(self.folder / "venv" / "bin" / "transformers"), "serve", str(model), "--continuous-batching"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", setup.dtype]
        return argv, {}

    def body(self, setup: Setup, prompt: str, tokens: int) -> dict[str, Any]:
        """It refuses fields that it does not know; the model never ends an answer by itself."""
        body = super().body(setup, prompt, tokens)
        return {key: value for key, value in body.items() if key not in ("ignore_eos", "stream_options")}
