"""What is measured as it happens, for /metrics: times of calls and runs, and what each tenant has had."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from semantic_parrot.core.events import CallFailed, CallFinished
from semantic_parrot.core.execution import Ready
from semantic_parrot.core.observer import Execution, Observer
from semantic_parrot.core.run import Run

#: Seconds: from a token of a small model to a long queue.
SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Tenants that have time series of their own; all who come later share the series "other".
TENANTS = 200


class Measures(Observer):
    """Owned by the event loop. `registry` holds its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tenants: set[str] = set()

        def histogram(name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"parrot_{name}_seconds", text, [label], buckets=buckets, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"parrot_{name}", text, labels, registry=self.registry)

        self._queue = histogram("queue", "From when a call was ready to its engine's admission", "objective", LONG)
        self._first = histogram(
            "time_to_first_token", "From a call's being ready to its first token", "objective", LONG
        )
        self._token = histogram("time_per_output_token", "Between tokens, on average of a call", "objective", SHORT)
        self._run = histogram("run", "From a run's submission to its end", "status", LONG)
        self._calls = counter("calls", "Calls of runs that were ready and have ended", "status")
        self._made = counter("prefetched_answers", "Answers of prefetch runs: made before the app asked for them")
        self._unclaimed = counter("unclaimed_answers", "Answers that the client says its app never asked for")
        self._runs = counter("tenant_runs", "Runs that ended, by tenant", "tenant")
        self._tokens = counter("tenant_tokens", "Tokens of executions, by tenant and kind", "tenant", "kind")
        self._times: dict[str, tuple[Histogram, Histogram]] = {}  # by objective: to look labels up is slow
        self._kinds: dict[str, tuple[Counter, Counter, Counter]] = {}  # by tenant
        for ended in ("finished", "failed"):
            self._calls.labels(ended)  # a series that begins at 0 has a rate from its first call on

    def executed(self, execution: Execution) -> None:
        usage, timings, objective = execution.done.usage, execution.done.timings, execution.objective
        times = self._times.get(objective)
        if times is None:
            times = self._times[objective] = self._queue.labels(objective), self._first.labels(objective)
        times[0].observe(timings.queued)
        times[1].observe(timings.queued + timings.prefill)
        if usage.completion > 1:
            self._token.labels(objective).observe(timings.decode / (usage.completion - 1))
        tenant = self._tenant(execution.tenant)
        kinds = self._kinds.get(tenant)
        if kinds is None:
            prompt, cached, completion = (self._tokens.labels(tenant, k) for k in ("prompt", "cached", "completion"))
            kinds = self._kinds[tenant] = prompt, cached, completion
        kinds[0].inc(usage.prompt - usage.cached)
        kinds[1].inc(usage.cached)
        kinds[2].inc(usage.completion)

    def call_ended(self, run: Run, ready: Ready, end: CallFinished | CallFailed) -> None:
        finished = isinstance(end, CallFinished)
        self._calls.labels("finished" if finished else "failed").inc()
        if finished and run.terms.parrot.lifetime == "prefetch":
            self._made.inc()

    def run_ended(self, run: Run) -> None:
        assert run.trace.seconds is not None
        self._run.labels(run.status).observe(run.trace.seconds)
        self._runs.labels(self._tenant(run.tenant)).inc()

    def run_released(self, run: Run, unclaimed: Collection[str]) -> None:
        self._unclaimed.inc(run.answered(unclaimed))

    def _tenant(self, name: str) -> str:
        if name not in self._tenants:
            if len(self._tenants) == TENANTS:
                return "other"
            self._tenants.add(name)
        return name
