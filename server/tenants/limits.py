"""Whether a tenant may have one more request now, and if not, when."""

from __future__ import annotations

import calendar
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from semantic_parrot.core.engines.protocol import Usage
from semantic_parrot.core.errors import InsufficientQuota, QueueFull, RateLimited
from semantic_parrot.core.observer import Observer
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tenants import TenantSection, Terms
from semantic_parrot.server.tenants.buckets import Bucket

#: Of a tenant: (its calls that wait for an engine; all that wait; seconds until its own have gone; until all have).
Queue = Callable[[str], tuple[int, int, float, float]]


@dataclass(frozen=True, slots=True)
class Used:
    """In one period, "2026-11" or "2026-11-21"."""

    period: str
    tokens: int = 0
    cost: float = 0.0


class Limits(Observer):
    """Owned by the event loop. `used`: at the start, by tenant; `tell` is called whenever some of `used` has changed.
    `queue` says how long the queues are. `clock` and `wall` as time.monotonic and time.time."""

    def __init__(
        self,
        terms: Terms,
        queue: Queue,
        used: Mapping[str, Used] | None = None,
        tell: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.used = dict(used or {})
        self._terms = terms
        self._queue = queue
        self._tell = tell
        self._clock = clock
        self._wall = wall
        self._sections = {tenant: terms.of(tenant) for tenant in terms.tenants}
        self._open: Counter[str] = Counter()
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def watch(self, runtime: Runtime) -> None:
        """Count what `runtime` does, and stop what goes past a quota. To be called before it starts."""
        runtime.observers.append(self)
        runtime.afford = self.afford

    def afford(self, tenant: str) -> None:
        """One more call, of a request or of a run that was let in. Raises InsufficientQuota."""
        self._refuse_used_up(tenant, self._of(tenant))

    def _of(self, tenant: str) -> TenantSection:
        return self._sections.get(tenant, self._terms.defaults)

    def enter(self, tenant: str, *, quota: bool = True) -> None:
        """One more request; `leave` follows. Raises QueueFull, InsufficientQuota, RateLimited: then it does not.
        `quota` False: whether it may use anything is asked later, of `afford`."""
        terms, now = self._of(tenant), self._clock()
        self._refuse_queued(tenant, terms)
        if quota:
            self._refuse_used_up(tenant, terms)
        if terms.concurrent is not None and self._open[tenant] >= terms.concurrent:
            *_, soon, _ = self._queue(tenant)
            message = f"{terms.concurrent} requests are open at once, and more may not be"
            raise RateLimited(message, retry_after=max(soon / terms.concurrent, 1.0))
        for name, rate, least in (
            ("tokens", terms.tokens_per_minute, 1e-6),
            ("requests", terms.requests_per_minute, 1.0),
        ):
            if rate is not None and (wait := self._bucket(tenant, name, rate, now).wait(now, least)) > 0:
                raise RateLimited(f"{rate} {name} a minute are used up; try again in {wait:.3g} s", retry_after=wait)
        if terms.requests_per_minute is not None:
            self._buckets[tenant, "requests"].take(1, now)
        self._open[tenant] += 1

    def leave(self, tenant: str) -> None:
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]

    def took(self, tenant: str, usage: Usage, cost: float | None) -> None:
        terms, now = self._of(tenant), self._clock()
        tokens = usage.prompt + usage.completion
        if terms.tokens_per_minute is not None:
            self._bucket(tenant, "tokens", terms.tokens_per_minute, now).take(tokens, now)
        if terms.quota_tokens is not None or terms.quota_cost is not None:
            before = self._used(tenant, terms)
            self.used[tenant] = Used(before.period, before.tokens + tokens, before.cost + (cost or 0.0))
            self._tell()

    def _refuse_queued(self, tenant: str, terms: TenantSection) -> None:
        own, every, soon, later = self._queue(tenant)
        if terms.queued is not None and own >= terms.queued:
            raise QueueFull(f"{own} calls of yours wait already; {terms.queued} may", retry_after=max(soon, 1.0))
        if every >= self._terms.limits.queued:
            raise QueueFull("the server is busy: too many calls wait already", retry_after=max(later, 1.0))

    def _refuse_used_up(self, tenant: str, terms: TenantSection) -> None:
        used = self._used(tenant, terms)
        for what, have, most in (("tokens", used.tokens, terms.quota_tokens), ("cost", used.cost, terms.quota_cost)):
            if most is not None and have >= most:
                message = f"the quota of {most:g} ({what}) of {used.period} is used up"
                raise InsufficientQuota(message, retry_after=_left(used.period, self._wall()))

    def _used(self, tenant: str, terms: TenantSection) -> Used:
        """In the period that it is now."""
        form = "%Y-%m-%d" if terms.quota_period == "day" else "%Y-%m"
        period = time.strftime(form, time.gmtime(self._wall()))
        used = self.used.get(tenant)
        return used if used is not None and used.period == period else Used(period)

    def _bucket(self, tenant: str, name: str, rate: float, now: float) -> Bucket:
        found = self._buckets.get((tenant, name))
        if found is None:
            found = self._buckets[tenant, name] = Bucket(rate, now)
        return found


def _left(period: str, now: float) -> float:
    """Seconds until the period is over."""
    year, month, *day = map(int, period.split("-"))
    first = (year, month, day[0] + 1) if day else (year + month // 12, month % 12 + 1, 1)
    return max(calendar.timegm((*first, 0, 0, 0)) - now, 1.0)
