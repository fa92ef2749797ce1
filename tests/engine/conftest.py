"""The engine in this process, and the checkpoints it runs: real ones, small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from c_kernels import kernels
from tiny_models import make_model

from semantic_parrot.core.engine.loader import load
from semantic_parrot.core.engine.loop import EngineLoop
from semantic_parrot.core.engine.messages import Failed, Finished, Options, Text
from semantic_parrot.core.engines.protocol import UNDIRECTED, Directions, Done
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.sampling import Sampling


@pytest.fixture(autouse=True)
def _one_thread():
    # Two threads that wait for each other are slower than one on a busy machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[..., Path]:
    """tiny(family, **config): the directory of a checkpoint, made once a session."""
    made: dict[str, Path] = {}

    def get(family: str, **config: Any) -> Path:
        key = repr((family, sorted(config.items())))
        if key not in made:
            made[key] = make_model(family, tmp_path_factory.mktemp("models") / family, **config)
        return made[key]

    return get


def request(content: str | tuple[Message, ...], max_tokens: int | None = 24, **sampling: Any) -> ModelRequest:
    fields = {"temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": (), "ignore_eos": True, **sampling}
    messages, prompt = (None, content) if isinstance(content, str) else (content, None)
    return ModelRequest("m", messages, prompt, Sampling(max_tokens=max_tokens, **fields))


@dataclass
class Recorded:
    """Stands before the engine's runner and notes the logits of each token it samples."""

    runner: Any
    logits: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)

    def prepare(self, batch):
        self.runner.prepare(batch)

    def run(self, batch):
        work, logits = self.runner.run(batch)
        for w, row in zip(work, logits, strict=True):
            self.logits[w.sequence.id, w.sequence.computed + w.rows] = row.clone()
            self.tokens[w.sequence.id] = w.sequence.tokens  # the live list: complete when the request has ended
        return work, logits


class Bench:
    """An engine loop, driven to the end of its requests."""

    def __init__(self, model_dir: Path, **options: Any) -> None:
        self.loop: EngineLoop
        self.loop, self.context = load(Options(str(model_dir), **{"kv_tokens": 8192, **options}))
        self.recorded = Recorded(self.loop._runner)
        self.loop._runner = self.recorded
        self.deltas: dict[int, list[str]] = {}
        self.logprobs: dict[int, list[tuple[TokenLogprob, ...]]] = {}
        self.done: dict[int, Done] = {}
        self.failed: dict[int, Failed] = {}
        self.ids = 0

    def submit(self, r: ModelRequest, directions: Directions = UNDIRECTED) -> int:
        self.ids += 1
        failed = self.loop.submit(self.ids, r, time.monotonic(), directions)
        if failed is not None:
            self.failed[self.ids] = failed
        return self.ids

    def step(self) -> None:
        for reply in self.loop.step():
            if isinstance(reply, Text):
                self.deltas.setdefault(reply.id, []).append(reply.text)
                self.logprobs.setdefault(reply.id, []).append(reply.logprobs)
            elif isinstance(reply, Finished):
                self.done[reply.id] = reply.done
            elif isinstance(reply, Failed):
                self.failed[reply.id] = reply

    def drain(self) -> None:
        while self.loop.busy:
            self.step()

    def run(self, *requests: ModelRequest) -> list[Done]:
        ids = [self.submit(r) for r in requests]
        self.drain()
        return [self.done[id] for id in ids]

    def tokens(self, id: int) -> list[int]:
        return self.recorded.tokens[id]

    def logits(self, id: int) -> torch.Tensor:
        """Of each generated token, in order: [tokens, vocabulary]."""
        mine = sorted((position, row) for (i, position), row in self.recorded.logits.items() if i == id)
        return torch.stack([row for _, row in mine])


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench


@pytest.fixture(scope="session")
def ask() -> Callable[..., ModelRequest]:
    return request


@pytest.fixture
def in_c() -> None:
    """Skips where there is no compiler for the kernels in C."""
    kernels()
