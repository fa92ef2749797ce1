"""Calls that came alone, when they have ended: each is reported as a run of one call, under the id of its answer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from semantic_parrot.core.analysis import Class
from semantic_parrot.core.engines.protocol import Placed, Usage
from semantic_parrot.core.errors import Cancelled
from semantic_parrot.core.events import RunUsage, Status, Timings
from semantic_parrot.core.observer import Observer, SingleCall
from semantic_parrot.core.trace import CallTrace, State, Trace
from semantic_parrot.core.usage import Price

#: Calls of all tenants that are remembered.
MOST = 5_000

#: By what became of the call: of the run, and of its call.
ENDS: dict[str | None, tuple[Status, State]] = {
    None: ("finished", "finished"),
    Cancelled.code: ("cancelled", "aborted"),
}


@dataclass(frozen=True, slots=True)
class Single:
    """Nothing of its texts: what a report tells. As in SingleCall; `usage`, `timings` and `placed` of its answer."""

    id: str
    tenant: str
    model: str
    objective: Class
    because: str
    sources: tuple[tuple[str, str], ...]
    began: float
    seconds: float
    error: str | None
    usage: Usage | None
    timings: Timings | None
    placed: Placed | None

    def trace(self, price: Price | None) -> Trace:
        """As of a run, by its model's `price`."""
        trace = Trace(self.id, self.tenant)
        trace.began(self.began)
        trace.status, state = ENDS.get(self.error, ("failed", "failed"))
        trace.seconds, trace.usage = self.seconds, self._usage(price)
        call = trace.calls[self.id] = CallTrace(self.id, self.id, (), None, state)
        call.objective, call.because, call.reason = self.objective, self.because, self.error
        call.ready, call.ended, call.outside = 0.0, self.seconds, self.sources
        call.usage, call.timings, call.placed = self.usage, self.timings, self.placed
        if self.placed is not None:
            trace.planned = self.placed.seconds
        return trace

    def _usage(self, price: Price | None) -> RunUsage:
        usage = self.usage
        if usage is None:
            return RunUsage()
        total = usage.prompt + usage.completion
        if self.placed is not None and self.placed.shared:
            return RunUsage(shared_calls=1, shared_tokens=total)
        return RunUsage(
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            completion_tokens=usage.completion,
            total_tokens=total,
            calls=1,
            cost=None if price is None else price.of(usage),
        )


class Singles(Observer):
    """The last ones. Owned by the event loop."""

    singles = True

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Single] = OrderedDict()

    def single_ended(self, call: SingleCall) -> None:
        done = call.done
        made = (None, None, None) if done is None else (done.usage, done.timings, done.placed)
        about = call.id, call.tenant, call.body["model"], call.objective, call.because, call.sources
        self._kept[call.id] = Single(*about, call.began, call.seconds, call.error, *made)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def find(self, id: str, tenant: str) -> Single | None:
        """The tenant's call whose answer has the `id`."""
        found = self._kept.get(id)
        return found if found is not None and found.tenant == tenant else None
