"""One engine as the scheduler sees it: what runs there, and what one more task costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from semantic_parrot.core.scheduling.costs import CostModel
from semantic_parrot.core.scheduling.task import Placement, Policy

#: Prompt tokens that an engine is taken to have found resident, as expected, before it says anything.
TRUSTED = 4000.0


@dataclass(slots=True, eq=False)
class EngineState:
    """`n` tasks are here, `solo` of them latency calls that cap the batch, `batch` of them of a rank that gives way.
    `preempts`: the engine orders by rank, and pauses what is beyond a cap. `decoding`: how many are in a step.
    `filling`: prompt tokens still to be prefilled, `urgent` those of rank 0. Of the prompt tokens `expected` to be
    resident so many were `found`, and `trust` is that share. `speed`: how many sequences of an idle engine it is worth.

    What one more task costs is `cost`, of the figures that `reckon` sets.
    """

    index: int
    window: int
    costs: CostModel
    preempts: bool = False
    up: bool = True
    n: int = 0
    solo: int = 0
    batch: int = 0
    decoding: int = 0
    filling: float = 0.0
    urgent: float = 0.0
    within: int = 0
    cap: int = 0
    wait: float = 0.0
    wait_first: float = 0.0
    fill: float = 0.0
    emit: float = 0.0
    emit_solo: float = 0.0
    lost: float = 0.0
    speed: float = 0.0
    area: float = 0.0
    paused: float = 0.0
    since: float = 0.0
    running: dict[int, Placement] = field(default_factory=dict)
    expected: float = TRUSTED
    found: float = TRUSTED
    trust: float = 1.0

    def integrate(self, now: float) -> float:
        """The integral of the decoding batch over time until `now`; `paused` is that of those who had to pause."""
        self.area += self.decoding * (now - self.since)
        self.paused += (self.n - self.decoding) * (now - self.since)
        self.since = now
        return self.area

    def takes(self, rank: int) -> bool:
        """Whether there is room for a task of `rank`. One that preempts has it for rank 0, whatever else is there."""
        if rank:
            return self.n < self.cap
        return (self.n - self.batch if self.preempts else self.n) < self.window

    def cost(self, prompt: float, held: float, output: float, rank: int, solo: bool, queued: float | None) -> float:
        """Seconds that one more task adds, for itself and for all that runs here: of `prompt` tokens, of which `held`
        are taken to be resident, and `output` tokens. For rank 0 the wait is `wait_first`. A solo call emits at
        `emit_solo`, and if it is the first to cap the engine, while others are capped (`queued` is not None), takes
        `lost` of its throughput from the batch here and from the `queued` tasks. `Board.least` goes by the same."""
        cost = (self.wait if rank else self.wait_first) + self.fill * (prompt - held * self.trust)
        cost += (self.emit_solo if solo else self.emit) * output
        if solo and queued is not None:
            cost += self.lost * output * (self.batch + queued)
        return cost

    def reckon(self, policy: Policy) -> None:
        """Set what one more task costs. Prefill takes the task's time, the engine's (from whoever comes next: else each
        sibling would fill the shared prefix on an engine of its own) and that of all who decode; a longer step slows
        all who decode. Where the engine preempts, a solo call decodes with no more than its cap and its like."""
        costs, n, first = self.costs, self.n, self.n - self.batch
        target = policy.slowdown * costs.step(1) if policy.tpot is None else policy.tpot
        capping = policy.on("batch-cap")
        self.within = within = min(self.window, costs.batch_within(target)) if capping else self.window
        self.cap = within if self.solo else self.window
        self.decoding = min(n, max(first, self.cap if self.preempts else self.window))
        self.wait = costs.prefill * self.filling
        self.wait_first = costs.prefill * self.urgent if self.preempts else self.wait
        self.fill = costs.prefill * (2 + self.decoding)
        beside = min(self.decoding, max(first, within - 1)) if self.preempts else n
        self.emit = costs.step(self.decoding + 1) + costs.slope * self.decoding
        self.emit_solo = costs.step(beside + 1) + costs.slope * beside
        self.speed = self.window * costs.step(1) / costs.step(self.window)
        kept = within / costs.step(within) * costs.step(self.window) / self.window
        self.lost = 0.0 if self.solo or not capping else max(0.0, 1 - kept) * costs.step(beside + 1)
