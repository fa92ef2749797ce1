"""Whether traces are wanted, as OpenTelemetry's own variables of the environment say, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from semantic_parrot.core.config import ConfigError

if TYPE_CHECKING:
    from semantic_parrot.server.telemetry.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def tracing(environ: Mapping[str, str]) -> Tracing | None:
    """None unless an endpoint, or OTEL_TRACES_EXPORTER, is set. Sampling, resource, headers and batches are as the SDK
    reads them from the environment. Raises ConfigError for what can't be had."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    wanted = bool(exporter) or any(environ.get(name) for name in _ENDPOINTS)
    if not wanted or exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporter not in ("", "otlp", "console"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER is otlp, console or none, not {exporter!r}")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if exporter != "console" and protocol != "http/protobuf":
        raise ConfigError(f"traces go out over http/protobuf, not {protocol!r}: see {_PROTOCOLS[1]}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        from semantic_parrot.server.telemetry.tracing import Tracing
    except ModuleNotFoundError as error:
        message = f"OTEL_… asks for traces, which need {error.name}: pip install 'semantic-parrot[otel]'"
        raise ConfigError(message) from None
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "parrot"}))
    chosen = ConsoleSpanExporter() if exporter == "console" else OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(chosen))
    return Tracing(provider)
