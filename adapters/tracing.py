"""The headers by which a server can join the app's trace."""

from __future__ import annotations

import sys


def trace_headers() -> dict[str, str]:
    """Of the running span, as the app's propagator writes them (`traceparent`). None where there is no span, or no
    OpenTelemetry: it is not imported for this."""
    trace = sys.modules.get("opentelemetry.trace")
    headers: dict[str, str] = {}
    if trace is not None and trace.get_current_span().get_span_context().is_valid:
        from opentelemetry.propagate import inject

        inject(headers)
    return headers
