"""The engine's planner with blocks that say what was computed in them, instead of a model: every position of a sequence
must hold what its own tokens lead to there, or the step fails. The next token is a function of all tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import Any

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.planner import Batch, Planner
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engines.protocol import Directions

WORDS = 5


def answer(prompt: List[int], count: int) -> list[int]:
    tokens = [*prompt]
    for _ in range(count):
        tokens.append(hash(tuple(tokens)) % WORDS)
    return tokens[len(prompt) :]


class Machine:
    """`now` grows by `dt` seconds a step. `rows`: computed in all. `batches`, `started`, `preempted`: of each."""

    def __init__(
        self,
        blocks: int,
        *,
        chunk: int = 32,
        max_batch: int = 8,
        long_after: int | None = None,
        cache: bool = True,
        dt: float = 0.0,
    ) -> None:
        self.pool = BlockPool(blocks)
        self.tree = PrefixTree(self.pool) if cache else None
        self.planner = Planner(self.pool, self.tree, budget=chunk, max_batch=max_batch, long_after=long_after)
        self.kv: dict[int, dict[int, int]] = {}
        self.now, self.dt = 1000.0, dt
        self.rows = 0
        self.batches: list[Batch] = []
        self.started: list[list[Sequence]] = []
        self.preempted: list[list[Sequence]] = []
        self.live: dict[int, Sequence] = {}
        self.ended: dict[int, list[int]] = {}

    def submit(self, prompt: List[int], count: int, rank: int = 0, **directions: Any) -> Sequence:
        id = len(self.live) + len(self.ended) + 1
        told: Any = Directions(rank, **directions)
        unused: Any = None
        s = Sequence(id, [*prompt], len(prompt), len(prompt) + count, unused, unused, self.now, told)
        self.live[id] = s
        self.planner.add(s)
        return s

    def ahead(self, key: int, prompt: List[int]) -> None:
        unused: Any = None
        known = [*prompt]
        self.planner.add_ahead(Sequence(key, known, len(known), len(known), unused, unused, self.now, ahead=True))

    def cancel(self, s: Sequence) -> None:
        del self.live[s.id]
        self.ended[s.id] = []
        self.planner.remove(s)

    def step(self, times: int = 1) -> Batch | None:
        for _ in range(times):
            batch = self._step()
        return batch

    def _step(self) -> Batch | None:
        self.now += self.dt
        before = set(self.planner.running)
        batch = self.planner.plan(self.now)
        self.started.append([s for s in self.planner.running if s not in before])
        self.preempted.append([s for s in before if s not in self.planner.running and not s.ahead])
        self.check()
        if batch is None:
            return None
        self.batches.append(batch)
        copied = [(c, dict(self.kv[c.source])) for c in batch.copies]
        for copy, content in copied:
            self.kv[copy.target] = {n: content[n] for n in range(copy.tokens)}
        for block in batch.clear:
            self.kv[block] = {}
        for work in batch.work:
            self._compute(work.sequence, work.rows, batch.long)
        self.rows += sum(w.rows for w in batch.work)
        for work in batch.work:
            s, samples = work.sequence, work.samples
            self.planner.computed(work)
            if samples:
                s.tokens.append(hash(tuple(s.tokens)) % WORDS)
            if samples and len(s.tokens) >= s.limit:
                self.planner.remove(s)
                self.ended[s.id] = s.tokens[s.prompt :]
                del self.live[s.id]
        return batch

    def _compute(self, s: Sequence, rows: int, long: bool) -> None:
        assert rows > 0
        state = hash(long)
        for position in range(s.computed + rows):
            state = hash((state, s.tokens[position]))
            block = s.blocks[position // BLOCK_SIZE]
            if position < s.computed:
                assert self.kv[block][position % BLOCK_SIZE] == state, "this is somebody else's KV"
            else:
                self.kv.setdefault(block, {})[position % BLOCK_SIZE] = state

    def check(self) -> None:
        """The books balance."""
        holders: dict[int, int] = {}
        for s in self.planner.running:
            assert len(s.blocks) * BLOCK_SIZE >= len(s.tokens) or s.pending == 1
            for block in s.blocks:
                holders[block] = holders.get(block, 0) + 1
        resident = set(self.tree.blocks()) if self.tree is not None else set()
        free = set(self.pool._free)
        assert not free & (holders.keys() | resident)
        assert len(free | holders.keys() | resident) == self.pool.total
        assert self.pool.used == len(holders)
        assert all(self.pool.holders(block) == count for block, count in holders.items())

    def drain(self, steps: int = 10_000) -> None:
        while self.live or self.planner.ahead:
            assert steps, "it does not end"
            steps -= 1
            self._step()
        assert self.pool.used == 0
