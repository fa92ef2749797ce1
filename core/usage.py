"""What a run takes: tokens, executions, cost; and the quota that bounds it.

Each token that an engine reports is billed once: to the run whose call it was executed for or, where calls share one
execution, to the first of them whose run is under way. The others are told what they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from semantic_parrot.core.engines.protocol import Usage
from semantic_parrot.core.errors import QuotaExceeded
from semantic_parrot.core.events import RunUsage
from semantic_parrot.core.program import Quota

NOTHING = Usage(0, 0, 0)

#: A cost is a sum of many small parts, each of them rounded.
ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class Price:
    """Of 10^6 tokens, in whatever currency: `prompt` that is computed, `cached` prompt that is reused, `completion`."""

    prompt: float
    cached: float
    completion: float

    def of(self, usage: Usage) -> float:
        fresh = usage.prompt - usage.cached
        return (fresh * self.prompt + usage.cached * self.cached + usage.completion * self.completion) / 1e6


class Payer(Protocol):
    """Whoever is told what an execution takes, as it does."""

    def began(self) -> None:
        """It was handed to an engine."""
        ...

    def took(self, more: Usage) -> None:
        """It took so much more than was told before."""
        ...


class Tally:
    """Of one run, owned by the event loop. Nothing is billed to it once it is closed."""

    def __init__(self, quota: Quota | None = None) -> None:
        self._quota = quota
        self._used = NOTHING
        self._shared = NOTHING
        self._cost: float | None = 0.0
        self._calls = self._shared_calls = 0
        self._reserved: dict[Meter, int] = {}
        self.closed = False

    @property
    def limited(self) -> bool:
        return self._quota is not None

    @property
    def exceeded(self) -> bool:
        """Whether what was used, and the prompts of the calls that were admitted, pass the quota."""
        return self._passes(0, 0.0)

    def over(self, where: str) -> QuotaExceeded:
        """The error of what the run can't have any more."""
        return QuotaExceeded(f"not there when the run had used up its quota of {self._quota}", where=where)

    def meter(self, price: Price | None) -> Meter:
        """Of one call, whose model has this price (None: it is not known)."""
        return Meter(self, price)

    def report(self) -> RunUsage:
        used, shared = self._used, self._shared
        return RunUsage(
            prompt_tokens=used.prompt,
            cached_tokens=used.cached,
            completion_tokens=used.completion,
            total_tokens=used.prompt + used.completion,
            calls=self._calls,
            shared_calls=self._shared_calls,
            shared_tokens=shared.prompt + shared.completion,
            cost=self._cost,
        )

    def _passes(self, tokens: int, cost: float) -> bool:
        if self._quota is None:
            return False
        for meter, prompt in self._reserved.items():
            tokens += prompt
            cost += meter.cost(Usage(prompt, 0, 0)) or 0.0
        most, dearest = self._quota.tokens, self._quota.cost
        tokens += self._used.prompt + self._used.completion
        cost += self._cost or 0.0
        return (most is not None and tokens > most) or (dearest is not None and cost > dearest * ROUNDING)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Meter:
    """Of one call: a Payer that bills its run's tally."""

    tally: Tally
    price: Price | None

    @property
    def closed(self) -> bool:
        return self.tally.closed

    def cost(self, usage: Usage) -> float | None:
        return None if self.price is None else self.price.of(usage)

    def reserve(self, prompt: int) -> None:
        """The call is admitted: its `prompt` tokens count from now on, as if none were cached, until it is known what
        they took. Raises QuotaExceeded if they alone pass what is left of the quota."""
        tally = self.tally
        if tally._passes(prompt, self.cost(Usage(prompt, 0, 0)) or 0.0):
            used = tally._used.prompt + tally._used.completion
            message = f"the prompt has {prompt} tokens, and of the run's quota of {tally._quota} {used} tokens are used"
            waiting = sum(tally._reserved.values())
            raise QuotaExceeded(message + (f", {waiting} more by prompts that are under way" if waiting else ""))
        tally._reserved[self] = prompt

    def release(self) -> None:
        """Nothing is reserved any more."""
        self.tally._reserved.pop(self, None)

    def began(self) -> None:
        self.tally._calls += not self.closed

    def took(self, more: Usage) -> None:
        self.release()
        tally = self.tally
        if not self.closed:
            tally._used += more
            cost = self.cost(more)
            tally._cost = None if tally._cost is None or cost is None else tally._cost + cost

    def joined(self) -> None:
        """An equal call of somebody else is being executed, and this one shares its answer."""
        self.release()
        self.tally._shared_calls += not self.closed

    def shared(self, more: Usage) -> None:
        if not self.closed:
            self.tally._shared += more


class Fare:
    """The Payer of an execution that several calls share: `aboard` in the order in which they came."""

    def __init__(self) -> None:
        self._aboard: list[Meter] = []
        self._taken = NOTHING
        self._began = False

    def board(self, meter: Meter) -> None:
        if self._began:
            meter.joined()
            meter.shared(self._taken)
        self._aboard.append(meter)

    def leave(self, meter: Meter) -> None:
        """Whoever comes next pays what is still to come."""
        self._aboard.remove(meter)

    def began(self) -> None:
        self._began = True
        payer = self._payer()
        for meter in self._aboard:
            if meter is payer:
                meter.began()
            else:
                meter.joined()

    def took(self, more: Usage) -> None:
        self._taken += more
        payer = self._payer()
        for meter in self._aboard:
            if meter is payer:
                meter.took(more)
            else:
                meter.shared(more)

    def _payer(self) -> Meter | None:
        return next((meter for meter in self._aboard if not meter.closed), None)
