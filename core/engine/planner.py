"""What the next step computes: decode first, then prefill in chunks, within a budget of tokens."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy, BlockPool
from semantic_parrot.core.engine.prefix_tree import Match, PrefixTree, common
from semantic_parrot.core.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the next `rows` tokens of a sequence."""

    sequence: Sequence
    rows: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's last token, so that its logits are wanted."""
        return self.rows == self.sequence.pending and not self.sequence.ahead


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. `clear` (blocks) and then `copies` come first. `long`: LongRoPE's long factors, for all of it."""

    work: tuple[Work, ...]
    copies: tuple[BlockCopy, ...]
    long: bool
    clear: tuple[int, ...] = ()


# Rows of prefill ahead in a step that also decodes: what the decoding sequences can spare.
AHEAD_ROWS = 128


class Planner:
    """Owns the queue, the running sequences and their blocks. One thread, the loop's.

    `tree` None: nothing is shared. `long_after`: a sequence of more tokens than this is computed with LongRoPE's long
    factors, all of it, as `generate` does (None: the model has no such regimes).
    """

    def __init__(
        self, pool: BlockPool, tree: PrefixTree | None, *, budget: int, max_batch: int, long_after: int | None
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.ahead: dict[int, Sequence] = {}  # by id; those not in `running` wait for idle time
        self._pool = pool
        self._tree = tree
        self._budget = budget
        self._max_batch = max_batch
        self._long_after = long_after
        self._long = False

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def add_ahead(self, sequence: Sequence) -> None:
        """Prefill `sequence` when there is nothing better to do. It replaces the one that has its id."""
        self.remove_ahead(sequence.id)
        if self._tree is not None:
            self.ahead[sequence.id] = sequence

    def remove_ahead(self, id: int) -> None:
        """Ended, cancelled or replaced; what it has computed stays in the tree."""
        sequence = self.ahead.pop(id, None)
        if sequence is not None and sequence in self.running:
            self._yield(sequence)

    def plan(self, now: float) -> Batch | None:
        """The next step, or None if nothing can run. `now`: time.monotonic()."""
        self._requeue_crossed()
        if self.waiting:
            for s in [s for s in self.running if s.ahead]:
                self._yield(s)
        if not self.running and not self.waiting and not self.ahead:
            return None
        decodes = self._decodes()
        budget = max(self._budget - len(decodes), 1)
        copies = self._admit(now, budget)
        if not self.waiting:
            copies += self._admit_ahead()
        if not self.running:
            return None
        self._long = self._turn()
        work = [w for w in decodes if w.sequence.long == self._long]
        planned = {w.sequence for w in decodes}
        for s in self.running:
            if budget and s.long == self._long and s not in planned:
                most = AHEAD_ROWS if s.ahead and decodes else budget
                work.append(Work(s, min(s.pending, budget, most)))
                budget -= work[-1].rows
        assert work, "sequences wait, and nothing can run"
        return Batch(tuple(work), tuple(copies), self._long, tuple(self._pool.to_clear()))

    def computed(self, work: Work) -> None:
        """The step has run: what it computed may be shared from now on, unless it is still growing."""
        s = work.sequence
        prefill = s.pending > 1 or s.computed < s.prompt
        s.computed += work.rows
        if self._tree is not None and prefill and not s.alone:
            self._tree.insert(s.long, s.tokens[: s.computed], s.blocks, tail=s.pending == 0)
        if s.ahead and s.pending == 0:
            self.remove_ahead(s.id)

    def remove(self, sequence: Sequence) -> None:
        """Finished or cancelled: its blocks are free, or stay in the tree for others."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def again(self, sequence: Sequence) -> None:
        """Compute a running sequence anew, alone: what it shared may be at fault, and nobody else shall share it."""
        self._preempt(sequence)
        sequence.alone = True
        self.forget_prefixes()

    def forget_prefixes(self) -> None:
        """Drop what is resident and held by no sequence."""
        if self._tree is not None:
            self._tree.evict(self._pool.total)

    def _decodes(self) -> list[Work]:
        """One token for each sequence past its prefill, and a block to put it in. Out of blocks, the sequence that
        was admitted last is preempted: it waits again, and what the tree lost of it is computed anew."""
        work = []
        for s in list(self.running):
            if s.pending != 1 or s not in self.running:
                continue
            while s.computed == len(s.blocks) * BLOCK_SIZE and not self._extend(s, 1):
                self._preempt(self.running[-1])
                if s not in self.running:
                    break
            else:
                work.append(Work(s, 1))
        return [w for w in work if w.sequence in self.running]

    def _admit(self, now: float, budget: int) -> list[BlockCopy]:
        """Take in waiting sequences, in order, while there are blocks and work left for this step."""
        copies: list[BlockCopy] = []
        budget -= sum(s.pending for s in self.running if s.pending > 1)
        for s in list(self.waiting):
            if len(self.running) >= self._max_batch or budget <= 0:
                break
            s.long = self._long_after is not None and len(s.tokens) > self._long_after
            match = self._match(s)
            if self._follows(s, match.tokens):
                continue
            if not self._place(s, match, copies):
                break
            if s.cached is None:
                s.cached, s.admitted = match.tokens, now
            self.waiting.remove(s)
            self.running.append(s)
            budget -= s.pending
        return copies

    def _admit_ahead(self) -> list[BlockCopy]:
        """Take in the next prefill ahead, if none runs. One for which there is no room now is given up."""
        copies: list[BlockCopy] = []
        if any(s.ahead for s in self.running):
            return copies
        for id, s in list(self.ahead.items()):
            s.long = self._long_after is not None and len(s.tokens) > self._long_after
            if any(other.long != s.long for other in self.running):
                continue  # taking turns with the other regime would delay it
            if self._place(s, self._match(s), copies):
                self.running.append(s)
                break
            del self.ahead[id]
        return copies

    def _yield(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)

    def _match(self, s: Sequence) -> Match:
        if self._tree is None or s.alone:
            return Match((), None)
        return self._tree.match(s.long, s.tokens, len(s.tokens) - 1)  # the last one's logits are wanted in any case

    def _place(self, s: Sequence, match: Match, copies: list[BlockCopy]) -> bool:
        """Give `s` the blocks it needs, those of `match` shared. False, and no change, if there are too few."""
        shared, partial = list(match.blocks), match.partial
        for block in shared:
            self._pool.hold(block)
        if partial is not None:
            self._pool.hold(partial.block)  # until its copy has a place
        s.blocks = shared
        reserve = len(self.running)  # room for the others to grow, or they would be preempted at once
        fits = self._extend(s, -(-len(s.tokens) // BLOCK_SIZE) - len(shared), reserve)
        if partial is not None:
            self._pool.drop((partial.block,))
        if not fits:
            self._pool.drop(s.blocks)
            s.blocks = []
            return False
        if partial is not None:
            copies.append(BlockCopy(partial.block, s.blocks[len(shared)], partial.tokens))
        s.computed = match.tokens
        return True

    def _follows(self, sequence: Sequence, found: int) -> bool:
        """Whether a running prefill is about to compute a prefix that this sequence needs and the tree lacks: then
        it waits, so that a cold fan-out fills its shared prefix once."""
        if self._tree is None or sequence.alone:
            return False
        most = len(sequence.tokens) - 1
        for leader in self.running:
            if found >= most or leader.long != sequence.long or leader.pending == 1 or leader.alone:
                continue
            gain = min(common(leader.tokens, sequence.tokens), most) - found
            # A few tokens are worth one step's wait, and not more.
            if gain >= BLOCK_SIZE or (gain > 0 and leader.pending <= self._budget):
                return True
        return False

    def _extend(self, sequence: Sequence, count: int, reserve: int = 0) -> bool:
        """`count` more blocks for a sequence, evicting from the tree; False if there are not as many."""
        if self._pool.available < count + reserve:
            return False
        if self._pool.free < count and self._tree is not None:
            # A few more than needed: an eviction has a fixed cost.
            self._tree.evict(max(count - self._pool.free, 8))
        sequence.blocks = sequence.blocks + self._pool.take(count)
        return True

    def _turn(self) -> bool:
        """Which LongRoPE regime runs: transformers picks the factors for a whole forward, so the two take turns."""
        regimes = {s.long for s in self.running}
        return not self._long if len(regimes) == 2 else True in regimes

    def _requeue_crossed(self) -> None:
        for s in list(self.running):
            if self._long_after is not None and not s.long and len(s.tokens) > self._long_after:
                self._preempt(s)

    def _preempt(self, sequence: Sequence) -> None:
        self._yield(sequence)
        if not sequence.ahead:
            self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        if self._tree is not None and sequence.computed and not sequence.alone:
            self._tree.insert(sequence.long, sequence.tokens[: sequence.computed], sequence.blocks, tail=True)
        if not sequence.finite:
            self._pool.doubt(sequence.blocks)
        self._pool.drop(sequence.blocks)
        sequence.blocks, sequence.computed, sequence.finite = [], 0, False
