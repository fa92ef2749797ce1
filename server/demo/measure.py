"""One chain, run eagerly and lowered in turn against the same server, and what each way took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable
from prometheus_client.parser import text_string_to_metric_families

from semantic_parrot.adapters.langchain import Explanation, disabled, explain
from semantic_parrot.server.demo.drawing import Span

WAYS = ("eager", "lowered")


@dataclass(frozen=True, slots=True)
class Workload:
    """A chain and its input; `title` is for people, `key` for JSON."""

    key: str
    title: str
    chain: Runnable[Any, str]
    input: Any


@dataclass(frozen=True, slots=True)
class Side:
    """One way of running: the run with the median time. Prompt tokens `computed` and `reused`, by the server."""

    text: str
    seconds: float
    round_trips: int
    computed: int
    reused: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`same_text`: over every run of both ways. `reads`: for each call the calls it reads; `prompts`: what it asks."""

    key: str
    title: str
    explanation: Explanation
    reads: dict[str, tuple[str, ...]]
    prompts: dict[str, str]
    same_text: bool
    eager: Side
    lowered: Side


class Server:
    """The server's own view of what happened: its counters, its runs. `base`: its address without /v1."""

    def __init__(self, base: str) -> None:
        self._http = httpx.Client(base_url=base, timeout=60)

    def close(self) -> None:
        self._http.close()

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that a run finds nothing that an earlier one left."""
        self._http.post("/reset_prefix_cache").raise_for_status()

    def counters(self) -> tuple[int, int, int]:
        """(round trips, prompt tokens computed, prompt tokens reused) so far."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self._http.get("/metrics").text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        names = ("parrot_requests_total", "parrot_prompt_tokens_computed_total", "parrot_prompt_tokens_reused_total")
        requests, computed, reused = (int(found[name]) for name in names)
        return requests, computed, reused

    def spans(self, offset: float) -> tuple[Span, ...]:
        """The calls of the newest run; the run reached the server `offset` seconds after the app's call."""
        newest = self._http.get("/v1/runs").raise_for_status().json()["data"][-1]
        calls = self._http.get(f"/v1/runs/{newest['id']}").raise_for_status().json()["calls"]
        spans = []
        for name, call in calls.items():
            timings = call["timings"]
            parts = tuple((phase, timings[phase]) for phase in ("queued", "prefill", "decode"))
            spans.append(Span(name, offset + timings["ready"], parts))
        return tuple(sorted(spans, key=lambda span: span.start))


class _Stopwatch(BaseCallbackHandler):
    """When the app's model calls begin and end, as LangChain tells it."""

    run_inline = True

    def __init__(self) -> None:
        self._zero = time.perf_counter()
        self._begun: dict[UUID, tuple[str, float]] = {}
        self.spans: list[Span] = []

    def _now(self) -> float:
        return time.perf_counter() - self._zero

    def on_chat_model_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._begun[run_id] = (f"request {len(self._begun) + 1}", self._now())

    def on_llm_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        name, begun = self._begun[run_id]
        self.spans.append(Span(name, begun, (("request", self._now() - begun),)))


def run_once(workload: Workload, way: str, server: Server, rtt: float) -> Side:
    """One run of the app's chain, with an empty prefix cache."""
    server.forget_prefixes()
    before = server.counters()
    watch = _Stopwatch()
    with disabled() if way == "eager" else nullcontext():
        begun = time.perf_counter()
        text = workload.chain.invoke(workload.input, {"callbacks": [watch]})
        seconds = time.perf_counter() - begun
    trips, computed, reused = (now - then for now, then in zip(server.counters(), before, strict=True))
    spans = tuple(sorted(watch.spans, key=lambda span: span.start)) if way == "eager" else server.spans(rtt / 2)
    return Side(text, seconds, trips, computed, reused, spans)


def compare(workload: Workload, server: Server, rtt: float, repeats: int, step: Callable[[], None]) -> Comparison:
    """Both ways in turn, `repeats` times each; `step` is called after each run."""
    runs: dict[str, list[Side]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            runs[way].append(run_once(workload, way, server, rtt))
            step()
    explanation = explain(workload.chain, workload.input)
    calls = {call.variable: call for call in explanation.calls}
    eager, lowered = (_median(runs[way]) for way in WAYS)
    return Comparison(
        key=workload.key,
        title=workload.title,
        explanation=explanation,
        reads={name: tuple(read for read in call.inputs if read in calls) for name, call in calls.items()},
        prompts={name: _preview(call.request) for name, call in calls.items()},
        same_text=len({side.text for sides in runs.values() for side in sides}) == 1,
        eager=eager,
        lowered=lowered,
    )


def _median(sides: list[Side]) -> Side:
    middle = statistics.median_low(side.seconds for side in sides)
    return next(side for side in sides if side.seconds == middle)


def _preview(request: dict[str, Any]) -> str:
    """The last message of a request, its references in braces."""
    content = request["messages"][-1]["content"]
    if isinstance(content, dict):
        content = "".join(part if isinstance(part, str) else f"{{{part['var']}}}" for part in content["$t"])
    return str(content)
