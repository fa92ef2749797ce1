"""The engine's planner with blocks that say what was computed in them, instead of a model: every position of a sequence
must hold what its own tokens lead to there, or the step fails. The next token is a function of all tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Any

import books

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.offload import Offload
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


class Slots:
    """A second tier's storage that gives its slots in two parts."""

    def __init__(self, slots: int) -> None:
        self.given, self._slots = 0, slots

    def extend(self) -> range:
        first, self.given = self.given, self._slots if self.given else self._slots // 2
        return range(first, self.given)


@dataclass
class Launched:
    """A step whose rows are computed; `sequences`: those that get a token of it."""

    batch: Batch
    sequences: list[Sequence]

    def inputs(self, sequences: List[Sequence]) -> Any:
        raise AssertionError("there is no device")


class Machine:
    """`now` grows by `dt` seconds a step. `slots`: of the second tier; `per_step` blocks are copied in each. `follow`:
    the next step is launched before the tokens of one are read; `followed`: how many were. `rows`: computed in all.
    `batches`, `started`, `preempted`: of each step."""

    def __init__(
        self,
        blocks: int,
        *,
        chunk: int = 32,
        max_batch: int = 8,
        long_after: int | None = None,
        cache: bool = True,
        dt: float = 0.0,
        slots: int = 0,
        per_step: int = 4,
        follow: bool = False,
    ) -> None:
        self.pool = BlockPool(blocks)
        self.storage = Slots(slots)
        self.offload = Offload(self.storage, per_step) if slots else None
        self.tree = PrefixTree(self.pool, self.offload) if cache else None
        self.planner = Planner(
            self.pool, self.tree, budget=chunk, max_batch=max_batch, long_after=long_after, offload=self.offload
        )
        self.slots: dict[int, dict[int, int]] = {}
        self.kv: dict[int, dict[int, int]] = {}
        self.now, self.dt = 1000.0, dt
        self.rows = self.followed = 0
        self.follow, self.long_after = follow, long_after
        self.next: Launched | None = None
        self.ends: dict[int, int] = {}
        self.batches: list[Batch] = []
        self.started: list[list[Sequence]] = []
        self.preempted: list[list[Sequence]] = []
        self.live: dict[int, Sequence] = {}
        self.ended: dict[int, list[int]] = {}

    def submit(self, prompt: List[int], count: int, rank: int = 0, room: int = 0, **directions: Any) -> Sequence:
        """`room`: tokens more than it will have, as far as the planner knows."""
        id = len(self.live) + len(self.ended) + 1
        told: Any = Directions(rank, **directions)
        unused: Any = None
        s = Sequence(id, [*prompt], len(prompt), len(prompt) + count + room, unused, unused, self.now, told)
        self.ends[id] = len(prompt) + count
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
        step = self.next or self._planned()
        if step is None:
            return None
        running = self.planner.running
        for work in step.batch.work:
            if work.sequence in running:
                self.planner.computed(work)
        following = self.planner.follow(step) if self.follow and step.sequences else None
        self.next = None if following is None else self._launched(following)
        self.followed += following is not None
        for s in step.sequences:
            if s in running:
                s.tokens.append(hash(tuple(s.tokens)) % WORDS)
                s.finite = self.follow
                if len(s.tokens) >= self.ends[s.id]:
                    self.planner.remove(s)
                    self.ended[s.id] = s.tokens[s.prompt :]
                    del self.live[s.id]
        return step.batch

    def _planned(self) -> Launched | None:
        before = set(self.planner.running)
        batch = self.planner.plan(self.now)
        self.started.append([s for s in self.planner.running if s not in before])
        self.preempted.append([s for s in before if s not in self.planner.running and not s.ahead])
        self.check()
        return None if batch is None else self._launched(batch)

    def _launched(self, batch: Batch) -> Launched:
        self.batches.append(batch)
        for copy in batch.moves.out:
            self.slots[copy.target] = dict(self.kv[copy.source])
        copied = [(c, dict(self.kv[c.source])) for c in batch.copies]
        for copy, content in copied:
            self.kv[copy.target] = {n: content[n] for n in range(copy.tokens)}
        for block in batch.clear:
            self.kv[block] = {}
        for copy in batch.moves.back:
            content = self.slots[copy.source]
            self.kv[copy.target] = {n: content[n] for n in range(copy.tokens)}
        for work in batch.work:
            self._compute(work.sequence, work.rows, batch.long)
        self.rows += sum(w.rows for w in batch.work)
        return Launched(batch, [w.sequence for w in batch.work if w.samples])

    def _compute(self, s: Sequence, rows: int, long: bool) -> None:
        assert rows > 0
        assert long == (self.long_after is not None and max(len(s.tokens), s.computed + rows) > self.long_after)
        state = hash(long)
        tokens = s.tokens if s.computed + rows <= len(s.tokens) else [*s.tokens, hash(tuple(s.tokens)) % WORDS]
        for position in range(s.computed + rows):
            state = hash((state, tokens[position]))
            block = s.blocks[position // BLOCK_SIZE]
            if position < s.computed:
                assert self.kv[block][position % BLOCK_SIZE] == state, "this is somebody else's KV"
            else:
                self.kv.setdefault(block, {})[position % BLOCK_SIZE] = state

    def check(self) -> None:
        """The books balance."""
        for s in self.planner.running:
            assert len(s.blocks) * BLOCK_SIZE >= len(s.tokens) or s.pending == 1
        tables = [s.blocks for s in self.planner.running]
        books.check(self.pool, self.tree, self.offload, tables, self.storage.given)

    def drain(self, steps: int = 10_000) -> None:
        while self.live or self.planner.ahead:
            assert steps, "it does not end"
            steps -= 1
            self._step()
        assert self.pool.used == 0
