"""OpenTelemetry: a run is a trace, or a part of its client's; each of its calls is a span.

A run's spans are made when it has ended, of what its report is made of: nothing is done for it while it runs. They go
out on a thread of their own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from semantic_parrot.core.dependencies import Dependencies
from semantic_parrot.core.events import Timings
from semantic_parrot.core.observer import Observer, SingleCall
from semantic_parrot.core.reported import phases
from semantic_parrot.core.run import Run
from semantic_parrot.core.trace import CallTrace, Trace

#: Calls that a span is linked to, of those that its call needed.
LINKS = 64

Attributes = dict[str, AttributeValue]


class Joining:
    """ASGI middleware: what a request causes belongs to the trace that its `traceparent` names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in headers if k in (b"traceparent", b"tracestate")}
        if "traceparent" not in carrier:
            await self._app(scope, receive, send)
            return
        token = attach(self._propagator.extract(carrier))
        try:
            await self._app(scope, receive, send)
        finally:
            detach(token)


class Tracing(Observer):
    """Owned by the event loop; `close` waits until all is exported, which blocks."""

    singles: ClassVar[bool] = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("semantic_parrot")
        self._parents: dict[str, Context] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parrot-traces")

    def run_began(self, run: Run) -> None:
        self._parents[run.id] = get_current()

    def run_ended(self, run: Run) -> None:
        # By name: messages of errors may quote values.
        codes = {name: str(error["code"]) for name, error in run.errors().items()}
        self._thread.submit(_run, self._tracer, self._parents.pop(run.id, Context()), run.trace, codes)

    def single_ended(self, call: SingleCall) -> None:
        self._thread.submit(_single, self._tracer, get_current(), call)

    def join(self, app: Starlette) -> None:
        """What a request of `app` causes belongs to its client's trace, if it says which that is."""
        app.add_middleware(Joining)

    def close(self) -> None:
        self._thread.shutdown()
        self._provider.shutdown()


def _run(tracer: Tracer, parent: Context, trace: Trace, codes: dict[str, str]) -> None:
    usage = trace.usage
    attributes: Attributes = {
        "parrot.run.id": trace.id,
        "parrot.tenant": trace.tenant,
        "parrot.run.status": trace.status,
        "parrot.run.planned_seconds": trace.planned,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "parrot.usage.cached_tokens": usage.cached_tokens,
    }
    root = tracer.start_span("run", parent, SpanKind.SERVER, attributes, start_time=_at(trace.created))
    inside, spans = set_span_in_context(root, parent), dict[str, Span]()
    depends = Dependencies(trace.calls, trace.links, trace.seconds)
    for output, call in sorted(trace.calls.items(), key=lambda item: item[1].ready or 0.0):
        if call.ready is None:
            continue  # it never began
        needed = [name for name in depends.needs(output) if name in spans][:LINKS]
        links = [Link(spans[name].get_span_context()) for name in needed]
        span = _call(tracer, inside, trace.created, call, links)
        spans[output] = span
        if call.state != "finished":
            span.set_status(Status(StatusCode.ERROR, codes.get(output, call.state)))
        span.end(_at(trace.created + (call.ready if call.ended is None else call.ended)))
    if trace.status != "finished":
        root.set_status(Status(StatusCode.ERROR, trace.status))
    root.end(_at(trace.created + (trace.seconds or 0.0)))


def _call(tracer: Tracer, parent: Context, created: float, call: CallTrace, links: list[Link]) -> Span:
    assert call.ready is not None
    attributes: Attributes = {"parrot.call.id": call.id, "parrot.call.output": call.output}
    if call.objective is not None:
        attributes["parrot.call.objective"] = call.objective
    if call.usage is not None:
        attributes |= _tokens(call.usage.prompt, call.usage.cached, call.usage.completion)
    if call.placed is not None:
        attributes |= {"parrot.engine": call.placed.engine, "parrot.engine.why": call.placed.why}
    began = created + call.ready
    span = tracer.start_span("call", parent, SpanKind.INTERNAL, attributes, links, start_time=_at(began))
    span.add_event("queue", timestamp=_at(began))
    if call.timings is not None:
        queued, prefill, _ = phases(call)
        _phases(span, began, queued, prefill)
    return span


def _single(tracer: Tracer, parent: Context, call: SingleCall) -> None:
    attributes: Attributes = {
        "parrot.call.id": call.id,
        "parrot.tenant": call.tenant,
        "gen_ai.operation.name": "chat" if "messages" in call.body else "text_completion",
        "gen_ai.request.model": str(call.body.get("model")),
    }
    timings = Timings()
    if call.done is not None:
        usage, timings = call.done.usage, call.done.timings
        attributes |= _tokens(usage.prompt, usage.cached, usage.completion)
        if call.done.placed is not None:
            attributes |= {"parrot.engine": call.done.placed.engine, "parrot.engine.why": call.done.placed.why}
    span = tracer.start_span("call", parent, SpanKind.SERVER, attributes, start_time=_at(call.began))
    span.add_event("queue", timestamp=_at(call.began))
    if call.done is not None:
        _phases(span, call.began, timings.queued, timings.prefill)
    else:
        span.set_status(Status(StatusCode.ERROR, call.error))
    span.end(_at(call.began + call.seconds))


def _phases(span: Span, began: float, queued: float, prefill: float) -> None:
    span.add_event("prefill", timestamp=_at(began + queued))
    span.add_event("decode", timestamp=_at(began + queued + prefill))


def _tokens(prompt: int, cached: int, completion: int) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "parrot.usage.cached_tokens": cached,
    }


def _at(seconds: float) -> int:
    """Nanoseconds of Unix time."""
    return round(seconds * 1e9)
