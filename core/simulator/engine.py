"""A modelled engine: continuous batching by rank, chunked prefill, caps that pause what gives way, a prefix cache."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, sqrt

from semantic_parrot.core.simulator.cache import Cache
from semantic_parrot.core.simulator.costs import Costs

#: Parts of a step that are none: wide enough for clocks of 10^7 seconds, on which a nanosecond is lost.
CLOSE = 1e-5

#: Rows of prefill that gives way, for each place that a cap leaves free, or for one if none is; and seconds after which
#: a paused sequence, or one that its like passed over, gives way no more. As the native engine has them; but that also
#: counts the time for which lower ranks pass one over.
ROWS, BOUND = 8, 30.0


@dataclass(slots=True, eq=False)
class Sequence:
    """`order`: of a rank, the least is filled first. `names`, `ends`: the prompt's prefixes and their tokens. `fresh`:
    prompt tokens to fill, once that has begun; `cached`: those found resident. `since`: when it was passed over or
    paused. `left`: tokens to generate, while it does not decode; `stops`: the engine's count of steps at which there
    will be none left, while it does."""

    id: int
    prompt: float
    output: int
    admitted: float
    rank: int = 0
    cap: int | None = None
    order: tuple[float, ...] = ()
    names: tuple[int, ...] = ()
    ends: tuple[float, ...] = ()
    owner: int | None = None
    fresh: float | None = None
    cached: float = 0.0
    began: float = inf
    left: float = 0.0
    stops: float = inf
    decodes: bool = False
    since: float = inf


@dataclass(slots=True, eq=False)
class SimEngine:
    """Every decoding sequence gets one token a step, so their ends are found on one axis, the count of steps; it is
    moved on to `now` whenever the batch changes. A sequence's coming and going costs O(log batch), and what it makes
    pause and resume."""

    costs: Costs
    cache: Cache
    steps: float = 0.0
    moved: float = 0.0
    context: float = 0.0
    busy: float = 0.0
    n: int = 0
    first: int = 0  # of the `n` that decode, those of rank 0
    filling: list[tuple[int, tuple[float, ...], int, Sequence]] = field(default_factory=list)
    paused: list[tuple[int, int, Sequence]] = field(default_factory=list)
    _ends: list[tuple[float, int, Sequence]] = field(default_factory=list)
    _last: list[tuple[int, int, Sequence]] = field(default_factory=list)  # of those that decode, who gives way first
    _passed: deque[Sequence] = field(default_factory=deque)  # over by one that came later
    _caps: dict[int, int] = field(default_factory=dict)
    _limit: int = 0
    _readers: dict[int, int] = field(default_factory=dict)  # of each prefix, with tree attention

    def __post_init__(self) -> None:
        self._limit = self.costs.window

    def admit(self, sequence: Sequence, now: float) -> None:
        self.advance(now)
        heappush(self.filling, (sequence.rank, sequence.order, sequence.id, sequence))

    def _fills(self) -> Sequence | None:
        """Whose prompt is being filled: the first by rank, if it could decode thereafter. What it finds resident is
        found out only now: a cold fan-out fills its shared prefix once."""
        head = self._foremost()
        if head is None:
            return None
        if self.n >= self._limit if head.rank else self.first >= self.costs.window:
            return None
        if head.fresh is None:
            found = self.cache.hit(head.names, head.ends)
            if not self.cache.admit(head.names, head.ends, head.prompt + head.output):
                return None
            head.cached = min(found, head.prompt - 1)
            head.fresh = head.prompt - head.cached
            for *_, other in self.filling:
                if other.admitted < head.admitted and other.rank == head.rank and other.since == other.began == inf:
                    other.since = self.moved
                    self._passed.append(other)
        return head

    def _foremost(self) -> Sequence | None:
        """By rank and order; but first who was passed over for too long."""
        while self._passed and self._passed[0].began < inf:
            self._passed.popleft()
        if self._passed and self.moved - self._passed[0].since >= BOUND:
            self._passed[0].rank = 0
            return self._passed[0]
        while self.filling and self.filling[0][3].began < inf:
            heappop(self.filling)
        return self.filling[0][3] if self.filling else None

    def _rows(self, head: Sequence) -> int:
        if not self._caps or not head.rank:
            return self.costs.chunk
        return min(ROWS * max(self._limit - self.n, 1), self.costs.chunk)

    def _seconds(self, head: Sequence | None) -> float:
        """Of a step, now."""
        seconds = self.costs.step(self.n, self.context)
        return seconds if head is None else seconds + self.costs.prefill * self._rows(head)

    def advance(self, now: float) -> None:
        """Let time pass; nothing ends on the way (see `next`)."""
        elapsed, self.moved = now - self.moved, now
        head = self._fills()
        if elapsed <= 0 or (head is None and not self.n):
            return
        steps = self._steps(elapsed, self._seconds(head))
        self.busy += elapsed
        self.steps += steps
        self.context += steps * self.n
        if head is not None and head.fresh is not None:
            head.fresh -= steps * self._rows(head)

    def _steps(self, elapsed: float, seconds: float) -> float:
        """In `elapsed` seconds, if the first takes `seconds`: the context grows by `n` tokens with each."""
        grows = self.costs.token * self.n
        return elapsed / seconds if not grows else (sqrt(seconds * seconds + 2 * grows * elapsed) - seconds) / grows

    def next(self) -> float:
        """When the next prompt is filled or the next answer ends; inf if nothing runs."""
        head, at = self._fills(), inf
        seconds = self._seconds(head)
        while self._ends and not (self._ends[0][2].decodes and self._ends[0][2].stops == self._ends[0][0]):
            heappop(self._ends)
        if self._ends:
            at = max(0.0, self._ends[0][0] - self.steps)
        if head is not None and head.fresh is not None:
            at = min(at, max(0.0, head.fresh) / self._rows(head))
        return self.moved + at * (seconds + self.costs.token * self.n * at / 2) if at < inf else inf

    def due(self) -> tuple[Sequence | None, Sequence | None]:
        """(the one whose prompt is filled now, the one whose answer ends now), after `advance` to `next`."""
        filled = ended = None
        head = self._fills()
        if head is not None and head.fresh is not None and head.fresh <= CLOSE * self._rows(head):
            filled = head
            self.cache.put(filled.names, filled.ends, filled.owner)
            filled.began = filled.since = self.moved
            filled.left = max(0, filled.output - 1)
            if filled.cap is not None:
                self._caps[filled.id] = filled.cap
            heappush(self.paused, (filled.rank, filled.id, filled))
        if self._ends and self._ends[0][0] <= self.steps + CLOSE:
            ended = self._ends[0][2]
            if ended.decodes and ended.stops == self._ends[0][0]:
                self._stop(ended)
                self._caps.pop(ended.id, None)
                self.cache.discharge(ended.names, ended.ends, ended.prompt + ended.output)
            else:
                ended = None
            heappop(self._ends)
        if filled is not None or ended is not None:
            self._balance()
        return filled, ended

    def _balance(self) -> None:
        """Who decodes: the first by rank, no more than the window; while one that caps is among them, beyond its cap
        none that gives way."""
        window = self.costs.window
        if self.paused and self.moved - self.paused[0][2].since >= BOUND:
            late = heappop(self.paused)[2]
            late.rank = 0
            heappush(self.paused, (0, late.id, late))
        while True:
            self._limit = max(self.first, min(window, *self._caps.values())) if self._caps else window
            worst, head = self._worst(), self.paused[0][2] if self.paused else None
            if self.n > self._limit and worst is not None and worst.rank:
                self._pause(worst)
            elif head is not None and self.n < (self._limit if head.rank else window):
                self._resume(heappop(self.paused)[2])
            elif head is not None and worst is not None and head.rank < worst.rank:
                self._pause(worst)
            else:
                return

    def _worst(self) -> Sequence | None:
        while self._last and not (self._last[0][2].decodes and self._last[0][2].rank == -self._last[0][0]):
            heappop(self._last)
        return self._last[0][2] if self._last else None

    def _reads(self, s: Sequence, *, more: int) -> float:
        """Tokens of its prompt that a step reads for it, and with tree attention for nobody else; `more`: 1 as it
        comes, -1 as it goes."""
        if not self.costs.tree:
            return s.prompt
        tokens, before = s.prompt - (s.ends[-1] if s.ends else 0.0), 0.0
        for name, end in zip(s.names, s.ends, strict=True):
            others = self._readers.get(name, 0) - (more < 0)
            tokens += 0.0 if others else end - before
            self._readers[name] = others + (more > 0)
            if not self._readers[name]:
                del self._readers[name]
            before = end
        return tokens

    def _resume(self, s: Sequence) -> None:
        s.decodes, s.stops = True, self.steps + s.left
        self.n += 1
        self.first += s.rank == 0
        self.context += self._reads(s, more=1) + s.output - s.left
        heappush(self._ends, (s.stops, s.id, s))
        heappush(self._last, (-s.rank, -s.id, s))

    def _stop(self, s: Sequence) -> None:
        s.decodes, s.left = False, max(0.0, s.stops - self.steps)
        self.n -= 1
        self.first -= s.rank == 0
        context = self.context - self._reads(s, more=-1) - s.output + s.left
        self.context = max(0.0, context) if self.n else 0.0

    def _pause(self, s: Sequence) -> None:
        self._stop(s)
        s.since = self.moved
        heappush(self.paused, (s.rank, s.id, s))
