"""Traces: a run is one, or a part of its client's; each of its calls is a span with its phases."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from live import LiveServer, LocalServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from programs import request
from scripted import ScriptedEngine

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template
from semantic_parrot.server.telemetry.otel import tracing
from semantic_parrot.server.telemetry.tracing import Tracing

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "support" / "scripted_serve.py"), "serve"]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
JOIN = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "correct horse battery staple"
SINGLE = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
CHAIN = {
    "calls": [
        {"id": "one", "output": "a", "request": request(f"{SECRET} ", ("doc",))},
        {"id": "two", "output": "b", "request": request("again ", ("a",))},
    ],
    "inputs": {"doc": SECRET},
}


@contextmanager
def traced():
    """(a client of a server, what has been exported once that has ended)"""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runtime, traces = Runtime([ScriptedEngine()]), Tracing(provider)
    runtime.observers.append(traces)
    server = LocalServer(runtime)
    traces.join(server.app)
    with server, httpx.Client(base_url=server.base) as http:
        yield http, exporter.get_finished_spans
        traces.close()


def test_a_run_is_one_trace_and_each_call_a_span_in_it():
    with traced() as (http, finished):
        run = http.post("/v1/runs", json=CHAIN).json()
        http.post("/v1/runs", json=CHAIN)
    spans = [span for span in finished() if span.context.trace_id == finished()[0].context.trace_id]
    assert len(finished()) == 6  # of two traces
    root = {span.name: span for span in spans}["run"]
    calls = {span.attributes["parrot.call.id"]: span for span in spans if span.name == "call"}
    assert root.parent is None
    assert root.attributes["parrot.run.id"] == run["id"]
    assert root.attributes["gen_ai.usage.output_tokens"] == 6
    for name, span in calls.items():
        timings = run["calls"][name]["timings"]
        assert span.parent.span_id == root.context.span_id
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time
        assert [event.name for event in span.events] == ["queue", "prefill", "decode"]
        assert (span.start_time - root.start_time) / 1e9 == pytest.approx(timings["ready"], abs=1e-4)
        assert span.attributes["parrot.engine"] == "scripted-0"
    assert calls["one"].links == ()
    assert [link.context.span_id for link in calls["two"].links] == [calls["one"].context.span_id]
    assert not any(SECRET in span.to_json() for span in finished())


def test_it_joins_its_clients_trace_and_so_does_a_single_call():
    with traced() as (http, finished):
        http.post("/v1/runs", json=CHAIN, headers=JOIN)
        answer = http.post("/v1/chat/completions", json=SINGLE, headers=JOIN).json()
        http.post("/v1/chat/completions", json={**SINGLE, "stream": True}, headers=JOIN)
        alone = http.post("/v1/chat/completions", json=SINGLE).json()
    by_id = {span.attributes.get("parrot.call.id", "run"): span for span in finished()}
    assert {format(span.context.trace_id, "032x") for name, span in by_id.items() if name != alone["id"]} == {TRACE}
    assert by_id[alone["id"]].parent is None
    assert format(by_id["run"].parent.span_id, "016x") == PARENT
    assert format(by_id[answer["id"]].parent.span_id, "016x") == PARENT
    assert [event.name for event in by_id[answer["id"]].events] == ["queue", "prefill", "decode"]
    assert len(finished()) == 6


def test_what_fails_says_so_by_its_code_and_quotes_nothing():
    calls = [
        {"id": "bad", "output": "x", "request": {"model": "default", "prompt": template(("blank",))}},
        {"id": "after", "output": "y", "request": request(("x",))},
    ]
    with traced() as (http, finished):
        http.post("/v1/runs", json={"calls": calls, "inputs": {"blank": ""}})
    root, bad = sorted(finished(), key=lambda span: span.name, reverse=True)
    assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, "failed")
    assert (bad.status.status_code, bad.status.description) == (StatusCode.ERROR, "empty_prompt")
    assert [event.name for event in bad.events] == ["queue"]


def test_a_server_sends_them_to_a_collector(monkeypatch):
    got, came = [], threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, *_):
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        with LiveServer(command=COMMAND) as server:
            httpx.post(f"{server.url}/runs", json=CHAIN)
            assert server.stop() == 0  # and sends what is left
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    assert came.is_set()
    (path, sent), *more = got
    assert (path, more) == ("/v1/traces", [])
    (resource,) = sent.resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "parrot"
    assert sorted(span.name for span in resource.scope_spans[0].spans) == ["call", "call", "run"]
    assert SECRET.encode() not in sent.SerializeToString()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "parrot"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environ):
    assert tracing(environ) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "otlp, console or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "not 'grpc'"),
    ],
)
def test_what_is_asked_for_and_not_there_is_refused(environ, said):
    with pytest.raises(ConfigError, match=said):
        tracing(environ)
