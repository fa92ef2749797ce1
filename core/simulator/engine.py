"""A modelled engine: continuous batching, chunked prefill first come first served, a prefix cache of a given size."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

#: Parts of a step that are none: wide enough for clocks of 10^7 seconds, on which a nanosecond is lost.
CLOSE = 1e-5


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds. A step with `n` sequences over `context` resident tokens takes base + each * n + context * token; while
    prompts wait, each step also fills `chunk` of their tokens. `cache`: prompt tokens that stay after use."""

    base: float = 0.012
    each: float = 0.0004
    token: float = 2e-7
    prefill: float = 0.0001
    chunk: int = 512
    cache: int = 200_000

    def step(self, n: int, context: float = 0.0) -> float:
        return self.base + self.each * n + self.token * context


class Cache:
    """Resident prefixes by name, least recently used out first. A prefix counts its tokens past the one before it."""

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._tokens: OrderedDict[int, float] = OrderedDict()
        self._used = 0.0

    def touch(self, names: tuple[int, ...], ends: tuple[float, ...]) -> float:
        """Tokens of the longest resident prefix; all of `names` (shortest first) are resident afterwards."""
        hit = before = 0.0
        for name, end in zip(names, ends, strict=True):
            if name in self._tokens:
                hit = end
                self._tokens.move_to_end(name)
            else:
                self._tokens[name] = end - before
                self._used += end - before
            before = end
        while self._used > self._capacity:
            _, tokens = self._tokens.popitem(last=False)
            self._used -= tokens
        return hit


@dataclass(slots=True, eq=False)
class Sequence:
    """`fresh`: prompt tokens to fill; `cached`: those found resident. `ends`: the engine's count of steps at
    which it has generated `output` tokens."""

    id: int
    prompt: float
    fresh: float
    output: int
    admitted: float
    cached: float = 0.0
    began: float = 0.0
    ends: float = inf


@dataclass(slots=True, eq=False)
class SimEngine:
    """Every decoding sequence gets one token a step, so their ends are found on one axis, the count of steps; it is
    moved on to `now` whenever the batch changes. Costs O(log batch) for a sequence's coming and going."""

    costs: Costs
    cache: Cache
    steps: float = 0.0
    moved: float = 0.0
    context: float = 0.0
    busy: float = 0.0
    filling: list[Sequence] = field(default_factory=list)
    first: int = 0  # of `filling`
    decoding: list[tuple[float, int, Sequence]] = field(default_factory=list)

    def admit(self, sequence: Sequence, now: float) -> None:
        self.advance(now)
        self.filling.append(sequence)

    def _seconds(self) -> float:
        """Of a step, now."""
        seconds = self.costs.step(len(self.decoding), self.context)
        return seconds + self.costs.prefill * self.costs.chunk if self.first < len(self.filling) else seconds

    def advance(self, now: float) -> None:
        """Let time pass; nothing ends on the way (see `next`)."""
        elapsed, self.moved = now - self.moved, now
        if elapsed <= 0 or not (self.decoding or self.first < len(self.filling)):
            return
        steps = elapsed / self._seconds()
        self.busy += elapsed
        self.steps += steps
        self.context += steps * len(self.decoding)
        if self.first < len(self.filling):
            self.filling[self.first].fresh -= steps * self.costs.chunk

    def next(self) -> float:
        """When the next prompt is filled or the next answer ends; inf if nothing runs."""
        seconds = self._seconds()
        at = inf
        if self.decoding:
            at = max(0.0, self.decoding[0][0] - self.steps) * seconds
        if self.first < len(self.filling):
            at = min(at, max(0.0, self.filling[self.first].fresh) / self.costs.chunk * seconds)
        return self.moved + at

    def due(self) -> tuple[Sequence | None, Sequence | None]:
        """(the one whose prompt is filled now, the one whose answer ends now), after `advance` to `next`."""
        filled = ended = None
        if self.first < len(self.filling) and self.filling[self.first].fresh <= CLOSE * self.costs.chunk:
            filled = self.filling[self.first]
            self.first += 1
            if self.first > 64:
                del self.filling[: self.first]
                self.first = 0
            filled.began, filled.ends = self.moved, self.steps + max(0, filled.output - 1)
            self.context += filled.prompt
            heappush(self.decoding, (filled.ends, filled.id, filled))
        if self.decoding and self.decoding[0][0] <= self.steps + CLOSE:
            ended = heappop(self.decoding)[2]
            self.context = max(0.0, self.context - ended.prompt - ended.output) if self.decoding else 0.0
        return filled, ended
