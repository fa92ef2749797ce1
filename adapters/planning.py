"""What a planner is made of, whatever the framework: scopes, what it learns and counts, and its switches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from semantic_parrot.adapters.courier import COURIERS
from semantic_parrot.adapters.scope import Scope
from semantic_parrot.adapters.stats import SiteLedger, SiteNames, Statistics


class BasePlanner:
    """Thread-safe: what it learns is in the ledger and the statistics."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.ledger = SiteLedger()
        self.names = SiteNames(self.ledger)

    def new_scope(self, **options: Any) -> Scope:
        """`options`: those of Scope."""
        return Scope(COURIERS.get(), self.ledger, self.statistics, **options)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A fault of ours must never be the app's: it is counted, and the app goes on without a plan."""
        try:
            yield
        except Exception as error:
            self.statistics.planner_failed(error)
            if os.environ.get("PARROT_DEBUG"):
                raise


# For the running thread or task, and what it starts.
DISABLED: ContextVar[bool] = ContextVar("parrot_disabled", default=False)


def switched_off() -> bool:
    return DISABLED.get() or os.environ.get("PARROT_DISABLE", "") not in ("", "0")


@contextmanager
def disabled() -> Iterator[None]:
    """No planning inside: every call goes out by itself. For the running thread or task, and what it starts."""
    token = DISABLED.set(True)
    try:
        yield
    finally:
        DISABLED.reset(token)
