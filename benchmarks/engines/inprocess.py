"""Our engine without a server: its loop, stepped here. Also with parts of it turned off."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import mock

import torch

from peers.client import Answer
from peers.peer import Setup
from peers.process import PeerFailed
from semantic_parrot.core.engine import loader
from semantic_parrot.core.engine.loop import EngineLoop
from semantic_parrot.core.engine.messages import Failed, Finished, Options, Text
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling
from semantic_parrot.kernels import c_rows, worth


class InProcess:
    """`sharing` False: every request fills and keeps a prefix of its own. `tree` False: blocks are shared, and each
    row reads them anew. `kv_tokens`: of the cache. `chunk`: prompt tokens of a step."""

    def __init__(
        self, setup: Setup, *, kv_tokens: int, chunk: int = 512, sharing: bool = True, tree: bool = True
    ) -> None:
        torch.set_num_threads(setup.threads)
        keep_memory()
        options = Options(
            str(setup.checkpoint),
            threads=setup.threads,
            dtype=setup.dtype,
            kv_tokens=kv_tokens,
            chunk=chunk,
            prefix_cache=sharing,
            device="cpu",
        )
        self._tree = tree
        with _planned(tree):
            self._loop: EngineLoop = loader.load(options)[0]
        self._ids = iter(range(1 << 30))

    def together(self, prompts: list[str], tokens: int) -> list[Answer]:
        """All requests at once, until the last has ended. Raises PeerFailed."""
        sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        sent, arrived = time.perf_counter(), time.monotonic()
        ids = [next(self._ids) for _ in prompts]
        chunks: dict[int, list[float]] = {id: [] for id in ids}
        answers: dict[int, Answer] = {}
        for id, text in zip(ids, prompts, strict=True):
            if (refused := self._loop.submit(id, ModelRequest("m", None, text, sampling), arrived)) is not None:
                raise PeerFailed(refused.message)
        while self._loop.busy:
            with _planned(self._tree):
                replies = self._loop.step()
            now = time.perf_counter()
            for reply in replies:
                match reply:
                    case Text(id):
                        chunks[id].append(now)
                    case Finished(id, done):
                        usage = done.usage
                        answers[id] = Answer(done.text, sent, tuple(chunks[id]), usage.completion, usage.prompt)
                    case Failed(_, _, message):
                        raise PeerFailed(message)
        return [answers[id] for id in ids]


def keep_memory() -> None:
    """As the engine's own process is told to by its environment (`child.environment`), which peers would inherit here:
    pages of tensors that come and go with each layer are not zeroed each time."""
    with suppress(AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-3, 32 << 20), (-1, 512 << 20), (-2, 16 << 20)):  # mmap, trim, top pad
            mallopt(parameter, value)


@contextmanager
def _planned(tree: bool) -> Iterator[None]:
    """Without tree attention: nothing is worth a segment of its own and no rows go together; the kernel is the same."""
    if tree:
        yield
        return
    never = mock.patch.object(worth, "read", return_value=worth.Worth(()))
    with never, mock.patch.object(c_rows, "MOST", 1):
        yield
