"""What the process tells of itself while it serves: logs, and traces where they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.observer import Observer
from semantic_parrot.server.telemetry import otel  # not its `tracing`: a module of that name is beside it
from semantic_parrot.server.telemetry.json_logs import EventLog, JsonFormatter, logger, say

if TYPE_CHECKING:
    from semantic_parrot.server.telemetry.tracing import Tracing

__all__ = ["Telemetry", "say"]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """`observers` are for the runtime. `traces` None: nobody asked for any."""

    observers: Sequence[Observer]
    traces: Tracing | None

    @classmethod
    def set_up(cls, log_format: str, environ: Mapping[str, str], *, prompts: bool) -> Self:
        """How the whole process logs: "text", warnings for a person; or "json", those and every run and call, for a
        machine. Raises ConfigError."""
        if prompts and log_format != "json":
            raise ConfigError("log_prompts needs log_format json: the text log has no line for a call")
        traces = otel.tracing(environ)
        observers: list[Observer] = [] if traces is None else [traces]
        if log_format == "json":
            handler = logging.StreamHandler()
            handler.setFormatter(JsonFormatter(prompts=prompts))
            logging.basicConfig(level=logging.WARNING, handlers=[handler])
            logger.setLevel(logging.INFO)
            observers.append(EventLog(prompts=prompts))
        else:
            logging.basicConfig(level=logging.WARNING, format="parrot: %(levelname)s: %(message)s")
        return cls(observers, traces)

    def close(self) -> None:
        """Send what is left of the traces."""
        if self.traces is not None:
            self.traces.close()
