"""Which waiting sequences are let in, and who has to go for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as List

from semantic_parrot.core.engine.capping import Rows
from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy
from semantic_parrot.core.engine.prefix_node import common
from semantic_parrot.core.engine.prefix_tree import Match
from semantic_parrot.core.engine.roster import Roster
from semantic_parrot.core.engine.sequence import LAST, Sequence


class Admission:
    """`max_batch`: sequences that run at once. `chunk`: rows of a step."""

    def __init__(self, roster: Roster, *, max_batch: int, chunk: int) -> None:
        self._roster = roster
        self._tables = roster.tables
        self._max_batch = max_batch
        self._chunk = chunk

    def admit(self, rows: Rows, now: float) -> list[BlockCopy]:
        """Let in waiting sequences, in order, while there is room and work left for this step.

        Who can't be placed keeps out all behind it, so that it is not passed over for want of room; but not those that
        only wait for another's prefill (`_leader`).
        """
        roster, copies = self._roster, list[BlockCopy]()
        if not roster.waiting:
            return copies
        prefills = sorted((s for s in roster.running if s.pending > 1), key=lambda s: s.order)
        counted = 0
        floor = LAST  # of what was preempted just now, and of who would take its place
        for s in list(roster.waiting):
            while counted < len(prefills) and prefills[counted].order <= s.order:
                rows.take(prefills[counted])
                counted += 1
            if s.rank >= floor or not rows.left(s.rank):
                break
            if s.leader is not None and self._still_leads(s.leader, s):
                continue
            match = self._tables.match(s)
            leader = self._leader(s, match.tokens)
            if leader is not None and leader.rank <= s.directions.rank:
                s.leader, s.common = leader, common(leader.tokens, s.tokens)
                continue
            victims = self._victims(s, match, leader)
            if victims is None:
                break
            for victim in victims:
                floor = min(floor, victim.rank)
                roster.preempt(victim, now)
            if victims:
                prefills = [p for p in prefills if p in roster.running]
                match = self._tables.match(s)
            if not self._tables.make_room(s, match):
                break
            roster.waiting.remove(s)
            roster.waiting.passed(s, now)
            copies += roster.start(s, match, now)
            if s.cached is None:
                s.cached, s.admitted = match.tokens, now
            rows.take(s)
        return copies

    def _still_leads(self, leader: Sequence, s: Sequence) -> bool:
        """Whether the prefill that `s` waits for has more than a block to compute that they share."""
        running = leader in self._roster.running and leader.rank <= s.directions.rank
        return running and leader.computed + BLOCK_SIZE <= min(s.common, len(s.tokens) - 1)

    def _leader(self, s: Sequence, found: int) -> Sequence | None:
        """A running prefill that is about to compute a prefix that `s` needs and the tree lacks: then `s` waits for it,
        so that a cold fan-out fills its shared prefix once; or takes its place, if it ranks lower."""
        if not self._tables.shares or s.alone:
            return None
        most = len(s.tokens) - 1
        behind: Sequence | None = None
        for leader in self._roster.running:
            # Most pairs are told apart by one token, or else a burst would cost the square of its size.
            if leader.pending == 1 or leader.long != s.long or found >= min(most, len(leader.tokens)):
                continue
            if leader.tokens[found] != s.tokens[found] or leader.alone or leader.directions.salt != s.directions.salt:
                continue
            gain = min(common(leader.tokens, s.tokens), most) - found
            # A few tokens are worth one step's wait, and not more.
            if gain >= BLOCK_SIZE or (gain > 0 and leader.pending <= self._chunk):
                if leader.rank <= s.directions.rank:
                    return leader
                behind = leader
        return behind

    def _victims(self, s: Sequence, match: Match, leader: Sequence | None) -> List[Sequence] | None:
        """Who must be preempted to place `s`: those of a higher rank, the highest first, of these the last admitted;
        before all, `leader`, whose place it takes. None if it can't be placed: then nobody need go."""
        running = self._roster.running
        short = self._tables.short(s, match, len(running))  # room for each to grow, or it would be preempted at once
        full = len(running) >= self._max_batch
        victims: list[Sequence] = []
        if leader is None and short <= 0 and not full:
            return victims
        behind = [v for v in reversed(self._roster.by_rank()) if v.rank > s.directions.rank and v is not leader]
        drops, wanted = Counter[int](), set(match.blocks)
        for victim in ([leader] if leader is not None else []) + behind:
            victims.append(victim)
            short -= 1 + self._tables.gained(victim, wanted, drops)  # one that goes need not grow
            if short <= 0:
                return victims
        return None
