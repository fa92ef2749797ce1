"""What the next step computes: decode first, then prefill in chunks, within a budget of rows; all by rank."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from semantic_parrot.core.engine.admission import Admission
from semantic_parrot.core.engine.capping import Rows, decoding
from semantic_parrot.core.engine.kv import BlockCopy, BlockPool
from semantic_parrot.core.engine.offload import NO_MOVES, Moves, Offload
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.roster import Roster
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engine.tables import BlockTables
from semantic_parrot.core.engines.protocol import PrefixChange

#: Steps that may follow one that was planned: ranks, caps and patience, which go by time, have to be looked at.
FOLLOWING = 32


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the next `rows` tokens of a sequence."""

    sequence: Sequence
    rows: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's last token, so that its logits are wanted."""
        return self.rows >= self.sequence.pending and not self.sequence.ahead


class Latest(Protocol):
    """A step's tokens, which the device knows and the host does not yet."""

    @property
    def sequences(self) -> List[Sequence]: ...

    def inputs(self, sequences: List[Sequence]) -> Tensor:
        """Those of `sequences`, on the device: [len(sequences)]."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. First come, in this order, `moves.out`, `copies`, `clear` (blocks) and `moves.back`; that may be all.
    `long`: LongRoPE's long factors, for all of it. `latest`: where all rows have their tokens from, if the host does
    not know them."""

    work: tuple[Work, ...]
    copies: tuple[BlockCopy, ...]
    long: bool
    clear: tuple[int, ...] = ()
    moves: Moves = NO_MOVES
    latest: Latest | None = None


class Planner:
    """Owns the sequences and their blocks. One thread, the loop's.

    `tree` None: nothing is shared. `long_after`: a sequence of more tokens than this is computed with LongRoPE's long
    factors, all of it, as `generate` does (None: the model has no such regimes). `offload`: the tree's second tier.
    """

    def __init__(
        self,
        pool: BlockPool,
        tree: PrefixTree | None,
        *,
        budget: int,
        max_batch: int,
        long_after: int | None,
        offload: Offload | None = None,
    ) -> None:
        self._tables = BlockTables(pool, tree, offload)
        self._roster = Roster(self._tables)
        self.waiting = self._roster.waiting
        self.running = self._roster.running
        self.ahead = self._roster.ahead
        self._admission = Admission(self._roster, max_batch=max_batch, chunk=budget)
        self._budget = budget
        self._long_after = long_after
        self._long = False
        self._followed = 0  # steps in a row
        self._settled = False  # planned anew with nothing changed, a step would be like the last one

    def add(self, sequence: Sequence) -> None:
        self._settled = False
        sequence.told = sequence.arrived
        sequence.long = self._is_long(sequence)
        self.waiting.add(sequence)

    def add_ahead(self, sequence: Sequence) -> None:
        """Prefill `sequence` when there is nothing better to do. It replaces the one that has its id."""
        self.remove_ahead(sequence.id)
        if self._tables.shares:
            sequence.told = sequence.arrived
            sequence.long = self._is_long(sequence)
            self.ahead[sequence.id] = sequence

    def publish(self, sequence: Sequence) -> bool:
        """Keep for ever what `sequence`, a prefill ahead with the salt PUBLIC, has computed; False if it is not all."""
        return self._tables.publish(sequence)

    def remove_ahead(self, id: int) -> None:
        """Ended, cancelled or replaced; what it has computed stays in the tree."""
        self._settled = False
        sequence = self.ahead.pop(id, None)
        if sequence is not None and sequence in self.running:
            self._roster.stop(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Finished or cancelled: its blocks are free, or stay in the tree for others."""
        self._settled = False
        self._roster.remove(sequence)

    def again(self, sequence: Sequence) -> None:
        """Compute a running sequence anew, alone: what it shared may be at fault, and nobody else shall share it."""
        self._settled = False
        self._roster.preempt(sequence, self._tables.now)
        sequence.alone = True
        self.forget_prefixes()

    def forget_prefixes(self) -> None:
        """Drop what is resident and held by no sequence."""
        self._tables.forget_prefixes()

    def changed(self) -> PrefixChange | None:
        """See SaltedTree."""
        return self._tables.changed()

    def roots(self) -> Iterator[Node]:
        """Of the prefix tree. Whoever reads them changes nothing."""
        return self._tables.roots()

    def plan(self, now: float) -> Batch | None:
        """The next step, or None if nothing can run. `now`: time.monotonic()."""
        self._tables.now = now
        self._roster.mature(now)
        self._requeue_crossed(now)
        if self.waiting:
            for s in [s for s in self.running if s.ahead]:
                self._roster.stop(s)
        decodes = self._decodes(now)
        budget = max(self._budget - len(decodes), 1)
        copies = self._admission.admit(Rows(budget, decodes), now)
        if not self.waiting:
            copies += self._start_ahead(now)
        decodes = [s for s in decodes if s in self.running]
        work = self._work(decodes, Rows(budget, decodes), now)
        moves = self._tables.moves()
        assert work or moves.back or not self.running, "sequences run, and there is nothing to compute"
        if not (work or moves.out or moves.back):
            return None
        self._followed, self._settled = 0, not moves.out and all(w.rows == 1 for w in work)
        return Batch(tuple(work), tuple(copies), self._long, self._tables.to_clear(copies), moves)

    def follow(self, latest: Latest) -> Batch | None:
        """One token more for each of the sequences that `latest` has a token for, before that is known; None where the
        token itself may change what is computed, or `plan` might have something else to do. The rows of those that
        turn out to have ended are computed for nothing."""
        going = [s for s in latest.sequences if s in self.running]
        last = {s for s in going if len(s.tokens) + 1 >= s.limit}
        if self._followed == FOLLOWING or len(going) < len(self.running) or not all(_foreseen(s) for s in going):
            return None
        if (self.waiting or self.ahead) and not (self._settled and not last):
            return None
        going = [s for s in going if s not in last]
        if not going or any(s.long != self._is_long(s, 1) for s in going) or not all(map(self._tables.grow, going)):
            return None
        self._followed += 1
        for s in going:
            s.followed = True
        work = tuple(Work(s, 1) for s in going)
        return Batch(work, (), self._long, self._tables.to_clear(()), self._tables.moves(), latest)

    def computed(self, work: Work) -> None:
        """The step has run: what it computed may be shared from now on, unless it is still growing."""
        s = work.sequence
        prefill = s.pending > 1 or s.computed < s.prompt
        s.begun, s.followed = True, False
        s.computed += work.rows
        if prefill:
            self._tables.share(s)
        if s.ahead and s.pending == 0:
            self.remove_ahead(s.id)

    def _decodes(self, now: float) -> list[Sequence]:
        """Who gets one token more, and a block to put it in. Out of blocks, sequences are preempted, last the first in
        order: they wait again, and what the tree loses of them is computed anew."""
        by_rank = self._roster.by_rank()
        chosen: list[Sequence] = []
        last = len(by_rank)
        for s in decoding(by_rank, now):
            while s in self.running and not self._tables.grow(s):
                last -= 1
                self._roster.preempt(by_rank[last], now)
            if s not in self.running:
                break
            chosen.append(s)
        return chosen

    def _work(self, decodes: list[Sequence], rows: Rows, now: float) -> list[Work]:
        """The step's rows: one for each of `decodes`, then of those in prefill what `rows` has for them."""
        going = set(decodes)
        prefills = [s for s in self.running if s not in going and (s.pending > 1 or s.held_up is None)]
        # transformers picks LongRoPE's factors for a whole forward, so the two regimes take turns.
        regimes = {s.long for s in (*decodes, *prefills)}
        self._long = not self._long if len(regimes) == 2 else True in regimes
        work = [Work(s, 1) for s in decodes if s.long == self._long]
        newest = 0.0
        for s in sorted(prefills, key=lambda s: s.order):
            if s.long == self._long and (s.pending == 1 or self._tables.restore(s)):
                count = rows.take(s, now)
                if count:
                    newest = max(newest, s.arrived)
                    work.append(Work(s, count))
                elif s.arrived < newest:  # one that came later has its rows
                    s.hold_up(now)
        return work

    def _start_ahead(self, now: float) -> list[BlockCopy]:
        """Start the next prefill ahead, if none runs. One for which there is no room now is given up."""
        if any(s.ahead for s in self.running):
            return []
        for id, s in list(self.ahead.items()):
            if any(other.long != s.long for other in self.running):
                continue  # taking turns with the other regime would delay it
            match = self._tables.match(s)
            if self._tables.short(s, match, len(self.running)) <= 0:
                return self._roster.start(s, match, now) if self._tables.make_room(s, match) else []
            del self.ahead[id]
        return []

    def _requeue_crossed(self, now: float) -> None:
        """What has crossed LongRoPE's threshold is computed anew, all of it."""
        for s in [s for s in self.running if s.long != self._is_long(s)]:
            self._roster.stop(s)
            s.long = True
            self._roster.put_back(s, now)

    def _is_long(self, sequence: Sequence, more: int = 0) -> bool:
        return self._long_after is not None and len(sequence.tokens) + more > self._long_after


def _foreseen(s: Sequence) -> bool:
    """Whether its next token can be drawn by what is known on the device."""
    return s.constraint is None and s.penalties is None and s.scores is None
