"""What every route is given: the runtime, the settings, and the count of round trips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.measures import Measures


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_body`: bytes of a request body. `slow`: seconds in which it must have come whole. `heartbeat`: seconds
    between the comments that keep a stream open. `dev`: serve also what only measurements should reach."""

    max_body: int = 32 * 1024 * 1024
    slow: float = 60.0
    heartbeat: float = 15.0
    dev: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """`requests`: accepted POSTs by route, and `measures`, as /metrics reports them."""

    runtime: Runtime
    settings: Settings
    requests: Counter[str] = field(default_factory=Counter)
    measures: Measures = field(default_factory=Measures)

    def __post_init__(self) -> None:
        self.runtime.observers.append(self.measures)

    @contextmanager
    def round_trip(self, route: str) -> Iterator[None]:
        """Count one accepted POST, unless what happens inside refuses it with a 4xx. Raises Draining."""
        self.runtime.refuse_if_draining()
        accepted = True
        try:
            yield
        except ParrotError as error:
            accepted = error.status >= 500
            raise
        finally:
            self.requests[route] += accepted
