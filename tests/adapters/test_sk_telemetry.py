"""OpenTelemetry: the spans of the stock service, whether calls are planned or not, and programs in their trace."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
from live import LocalServer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from semantic_kernel import Kernel
from semantic_kernel.functions import KernelFunction, kernel_function
from semantic_kernel.utils.telemetry.model_diagnostics import decorators, function_tracer
from sk_engine import SkEngine
from sk_pairs import parrot, parrot_text, stock, stock_text

from semantic_parrot.adapters.semantic_kernel import attach, deferred
from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(Runtime([SkEngine()], disable={"single-flight"})) as running:
        yield running


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is traced; Semantic Kernel's tracers are those of the app's provider, which a test has only for itself."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(decorators, "tracer", tracer)
    # By its class, as the package names a decorator like the module.
    monkeypatch.setattr(sys.modules[KernelFunction.__module__], "tracer", tracer)
    for module in (decorators, function_tracer):
        monkeypatch.setattr(module.MODEL_DIAGNOSTICS_SETTINGS, "enable_otel_diagnostics", True)
    yield exporter
    provider.shutdown()


class Native:
    @kernel_function
    def up(self, s: str) -> str:
        return s.upper()


def kernel(service, *, ours):
    found = Kernel()
    found.add_service(service)
    found.add_plugin(Native(), "nat")
    for name, prompt in {"d": "D {{$t}}", "c": "C {{$t}}", "two": "{{nat.up s=$t}} {{w.d $t}} {{w.c $t}}"}.items():
        found.add_function(plugin_name="w", function_name=name, prompt=prompt)
    if ours:
        attach(found)
    return found


async def nested(app, ours):
    return str(await app.invoke(plugin_name="w", function_name="two", t="x & y"))


async def streamed(app, ours):
    return "".join([str(c[0]) async for c in app.invoke_stream(plugin_name="w", function_name="two", t="x")])


async def deferring(app, ours):
    if not ours:
        first = await app.invoke(plugin_name="w", function_name="d", t="x")
        return str(await app.invoke(plugin_name="w", function_name="two", t=str(first)))
    async with deferred(app):
        first = await app.invoke(plugin_name="w", function_name="d", t="x")
        second = await app.invoke(plugin_name="w", function_name="two", t=first)
    return str(second)


def tree(exporter):
    """(name, kind, status, attributes, events) of each span below its parent's; without ids, times and the provider."""
    found = exporter.get_finished_spans()
    exporter.clear()

    def node(span):
        attributes = {
            name: value
            for name, value in span.attributes.items()
            if name not in ("gen_ai.response.id", "gen_ai.system")
        }
        below = [node(s) for s in found if s.parent is not None and s.parent.span_id == span.context.span_id]
        events = [event.name for event in span.events]
        return (
            span.name,
            span.kind,
            span.status.status_code,
            sorted(attributes.items()),
            events,
            sorted(below, key=str),
        )

    return sorted((node(span) for span in found if span.parent is None), key=str)


_OTHERS = ("gen_ai.response.id", "gen_ai.system")


@pytest.mark.parametrize("work", [nested, streamed, deferring])
@pytest.mark.parametrize("pair", [(stock, parrot), (stock_text, parrot_text)], ids=["chat", "text"])
async def test_spans_are_those_of_the_stock_service(server, spans, work, pair):
    found = []
    for ours, make in enumerate(pair):
        service = make(server.url)
        before = server.requests()
        result = await work(kernel(service, ours=bool(ours)), bool(ours))
        await service.client.close()
        trips = server.requests() - before
        systems = {s.attributes.get("gen_ai.system") for s in spans.get_finished_spans()} - {None}
        assert systems == {"parrot" if ours else "openai"}
        found.append((result, tree(spans), trips))
    (expected, eager, many), (result, lowered, few) = found
    assert result == expected
    assert str(eager).count("('chat default'" if pair[0] is stock else "('text_completions default'") == many > few
    if work is not deferring:
        assert lowered == eager
        return
    # What is deferred is invoked when the block ends: a span tells that it was taken, another one that it ran.
    taken = [node for node in lowered if not node[-1]]
    assert [node for node in lowered if node[-1]] == eager
    assert len(taken) == len(eager)


def test_a_program_carries_the_span_that_it_is_sent_in(server, spans):
    headers = []
    inner = server.app.middleware_stack

    async def watched(scope, receive, send):
        headers.append((scope["path"], dict(scope["headers"]).get(b"traceparent", b"").decode()))
        await inner(scope, receive, send)

    server.app.middleware_stack = watched
    try:
        service = parrot(server.url)
        asyncio.run(nested(kernel(service, ours=True), ours=True))
    finally:
        server.app.middleware_stack = inner
    ((path, sent),) = headers
    assert path == "/v1/runs"
    _, trace_id, span_id, _ = sent.split("-")
    mine = {trace.format_span_id(span.context.span_id) for span in spans.get_finished_spans()}
    assert {trace.format_trace_id(span.context.trace_id) for span in spans.get_finished_spans()} == {trace_id}
    assert span_id in mine
