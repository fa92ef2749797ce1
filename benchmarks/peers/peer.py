"""What the benchmark knows of an engine that it compares."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from peers.client import Answer, together
from peers.process import Process, free_port
from peers.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Setup:
    """What all engines get alike. `checkpoint`: a Hugging Face directory whose weights are of `dtype`. `window`: tokens
    of a request at most, `batch` of them at once. `reuse`: prompts' beginnings are kept and reused as each engine does
    by default; otherwise nobody keeps any. `cores`: where servers may run, None: anywhere."""

    checkpoint: Path
    dtype: str
    threads: int
    window: int = 1024
    batch: int = 32
    reuse: bool = False
    cores: str | None = None


class Peer(ABC):
    """A server with OpenAI's routes. `home`: see `peers.home`; this peer's things are in `folder` there."""

    name: ClassVar[str]
    #: Of one request, with what makes it greedy and as long as asked for.
    route: ClassVar[str] = "/v1/completions"
    health: ClassVar[str] = "/health"
    #: None: there is nothing to install.
    recipe: ClassVar[Recipe | None] = None
    patience: ClassVar[float] = 180.0  # seconds until it is up

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / self.name

    def missing(self) -> str | None:
        """Why it can't be started here, and what to do; None if it can."""
        stamp = self.folder / "installed"
        there = self.recipe is None or (stamp.exists() and stamp.read_text() == self.recipe.version)
        return None if there else f"not installed in {self.folder}: run `make peers`"

    def version(self) -> str:
        return "" if self.recipe is None else self.recipe.version

    def convert(self, setup: Setup) -> Path:
        """The model as this peer reads it, made once."""
        return setup.checkpoint

    @abstractmethod
    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        """(arguments, environment)"""

    def body(self, setup: Setup, prompt: str, tokens: int) -> dict[str, Any]:
        return {
            "model": str(setup.checkpoint),
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def ask(self, process: Process, setup: Setup, prompts: Sequence[str], tokens: int) -> list[Answer]:
        """All at once. Raises PeerFailed."""
        bodies = [self.body(setup, prompt, tokens) for prompt in prompts]
        return asyncio.run(together(process.port, self.route, bodies))

    def start(self, setup: Setup) -> Process:
        """To be entered."""
        port = free_port()
        argv, env = self.command(setup, self.convert(setup), port)
        if setup.cores is not None:
            argv = ["taskset", "--cpu-list", setup.cores, *argv]
        log = self.home / "logs" / f"{self.name}-{setup.dtype}.log"
        environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(setup.threads), **env}
        return Process(argv, environment, log, port=port, health=self.health, patience=self.patience)
