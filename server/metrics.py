"""/metrics: a picture of the runtime's and the engines' own counters, taken when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from semantic_parrot.core.engines.protocol import Engine, Stats
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.server.service import Service

__all__ = ["CONTENT_TYPE", "Readings", "exposition"]

#: Seconds that a reading may take.
PATIENCE = 5.0

ROUTES = ("/v1/runs", "/v1/chat/completions", "/v1/completions", "/v1/responses")
ENDS = ("finished", "failed", "cancelled")

#: Field of Stats, its metric, its help.
COUNTERS = (
    ("prompt_tokens_computed", "Prompt tokens that went through the model"),
    ("prompt_tokens_reused", "Prompt tokens found in the prefix tree"),
    ("kv_blocks_restored", "Evicted KV blocks copied back from the second tier instead of computed"),
    ("generated_tokens", "Tokens generated"),
    ("steps", "Steps of the engine loop"),
)
GAUGES = (
    ("kv_blocks_used", "KV blocks held by live sequences"),
    ("kv_blocks_cached", "KV blocks resident in the prefix tree, free to be evicted"),
    ("kv_blocks_offloaded", "KV blocks evicted from the prefix tree and kept in the second tier"),
    ("kv_blocks_total", "KV blocks of the pool"),
    ("running", "Sequences being run"),
    ("waiting", "Sequences waiting in the engine"),
)


class Readings:
    """The engines' stats. An engine that is down, or too busy to say, keeps its last reading."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._last = [Stats() for _ in engines]

    async def take(self) -> Sequence[Stats]:
        await asyncio.gather(*map(self._read, range(len(self._engines))))
        return tuple(self._last)

    async def _read(self, i: int) -> None:
        with contextlib.suppress(EngineFailed, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                self._last[i] = await self._engines[i].stats()


@dataclass(frozen=True, slots=True, eq=False)
class Picture(Collector):
    """`stats`: one for each of the runtime's engines, in their order."""

    service: Service
    stats: Sequence[Stats]

    def collect(self) -> Iterator[Metric]:
        counters = self.service.runtime.counters
        requests = CounterMetricFamily(
            "parrot_requests", "Accepted POSTs to runs, chat completions, completions and responses", labels=["route"]
        )
        for route in ROUTES:
            requests.add_metric([route], self.service.requests[route])
        yield requests
        runs = CounterMetricFamily("parrot_runs", "Runs that ended, by final status", labels=["status"])
        for status in ENDS:
            runs.add_metric([status], counters.runs[status])
        yield runs
        yield GaugeMetricFamily("parrot_runs_open", "Runs under way", value=self._open_runs())
        calls = self.service.runtime.calls.schedulers
        waiting = sum(len(scheduler.decider.waiting) for scheduler in calls)
        yield GaugeMetricFamily("parrot_calls_waiting", "Calls that wait for their turn on an engine", value=waiting)
        yield CounterMetricFamily(
            "parrot_calls_executed", "Engine executions", value=self.service.runtime.calls.executed
        )
        unclaimed = "Tokens generated for results that nobody claimed"
        yield CounterMetricFamily("parrot_unclaimed_tokens", unclaimed, value=counters.unclaimed_tokens)
        yield from self._engines()

    def _open_runs(self) -> int:
        return sum(not run.ended for run in self.service.runtime.runs)

    def _engines(self) -> Iterator[Metric]:
        engines = self.service.runtime.engines
        up = GaugeMetricFamily("parrot_engine_up", "1 while the engine takes requests", labels=["engine"])
        for engine in engines:
            up.add_metric([engine.name], engine.healthy)
        yield up
        for kind, table in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for field, text in table:
                family = kind(f"parrot_{field}", text, labels=["engine"])
                for engine, stats in zip(engines, self.stats, strict=True):
                    family.add_metric([engine.name], getattr(stats, field))
                yield family


def exposition(service: Service, stats: Sequence[Stats]) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Picture(service, stats))
    return generate_latest(registry) + generate_latest(service.measures.registry)
