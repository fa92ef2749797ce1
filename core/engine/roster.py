"""The sequences of an engine and what becomes of them: they wait, run, and may be stopped to run on later."""

from __future__ import annotations

from semantic_parrot.core.engine.kv import BlockCopy
from semantic_parrot.core.engine.prefix_tree import Match
from semantic_parrot.core.engine.retention import Uses
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engine.tables import BlockTables
from semantic_parrot.core.engine.waiting import PATIENCE, Waiting


class Roster:
    """`running`: those that hold blocks, in the order in which they were admitted. `ahead`: prefills for requests still
    to come, by id; those that don't run wait for idle time. Owned by the planner."""

    def __init__(self, tables: BlockTables) -> None:
        self.tables = tables
        self.waiting = Waiting()
        self.running: dict[Sequence, None] = {}
        self.ahead: dict[int, Sequence] = {}

    def by_rank(self) -> list[Sequence]:
        """Those that run, who goes first to who is preempted first."""
        return sorted(self.running, key=lambda s: s.rank)

    def mature(self, now: float) -> None:
        """Of those that were held up for too long, the one that was for longest goes first from now on, and is held up
        no more; the next one when it has ended. All at once, they would fill the batch that a cap keeps small."""
        live = [s for s in (*self.running, *self.waiting) if not s.ahead]
        if any(s.overdue for s in live):
            return
        late = max(live, key=lambda s: s.held_for(now), default=None)
        if late is None or late.held_for(now) < PATIENCE:
            return
        if late in self.running:
            late.overdue = True
        else:
            self.waiting.remove(late)  # its place is another one now
            late.overdue = True
            self.waiting.add(late)

    def start(self, s: Sequence, match: Match, now: float) -> list[BlockCopy]:
        """`s`, which waits no longer, runs; there is room for it."""
        self.running[s] = None
        s.leader = None
        s.go_on(now)
        return self.tables.place(s, match)

    def stop(self, s: Sequence) -> None:
        """`s` has ended, for now or for ever: its blocks are free, or stay in the tree for others."""
        del self.running[s]
        self.tables.release(s, Uses.of(s.directions.keep, s.prompt, s.told))

    def preempt(self, s: Sequence, now: float) -> None:
        """`s` waits again. What it computed is resident, for the time being, and wanted soon."""
        del self.running[s]
        s.told = now
        self.tables.release(s, Uses(now, (), (now,)))
        if not s.ahead:
            self.put_back(s, now)

    def put_back(self, s: Sequence, now: float) -> None:
        """`s`, which was stopped, waits again."""
        s.hold_up(now)
        self.waiting.add(s)

    def remove(self, s: Sequence) -> None:
        """`s` has ended, running or waiting."""
        if s in self.running:
            self.stop(s)
        else:
            self.waiting.remove(s)
