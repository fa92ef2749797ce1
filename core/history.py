"""What is known of runs when they can no longer be read: the traces of the last ones, for reports that come late."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from itertools import islice

from semantic_parrot.core.sharing import Sharing
from semantic_parrot.core.trace import CallTrace, Trace

#: Calls that are closed at once: a long run that ends must not keep the event loop from the others.
BATCH = 200


class History:
    """`most`: nodes of all the traces that are kept; a run that has more is not. Owned by the event loop."""

    def __init__(self, most: int = 10_000) -> None:
        self._sharing: defaultdict[str, Sharing] = defaultdict(Sharing)  # by tenant
        self._most = most
        self._held = 0
        self._kept: OrderedDict[str, Trace] = OrderedDict()

    def sharing(self, tenant: str) -> Sharing:
        """Who shares prefixes with whom among the tenant's runs."""
        return self._sharing[tenant]

    def keep(self, trace: Trace) -> None:
        """The run of `trace` has ended, and can be read no longer."""
        if _size(trace) <= self._most:
            self._kept[trace.id] = trace
            self._held += _size(trace)
        while self._held > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._held -= _size(oldest)
        self._close(trace.id, self._sharing[trace.tenant], iter(trace.calls.values()))

    def find(self, run_id: str) -> Trace | None:
        return self._kept.get(run_id)

    def past(self, tenant: str) -> Iterator[Trace]:
        """Those of the tenant's runs, the last one first."""
        return (trace for trace in reversed(self._kept.values()) if trace.tenant == tenant)

    def latest(self, tenant: str) -> Trace | None:
        """That of the tenant's run which was kept last."""
        return next(self.past(tenant), None)

    def _close(self, run: str, sharing: Sharing, calls: Iterator[CallTrace]) -> None:
        batch = list(islice(calls, BATCH))
        for call in batch:
            call.shared = sharing.find(run, call.prefixes)
            sharing.leave(run, call.prefixes)
        if len(batch) == BATCH:
            asyncio.get_running_loop().call_soon(self._close, run, sharing, calls)


def _size(trace: Trace) -> int:
    return 1 + len(trace.calls) + len(trace.links)
