"""Switches and counters of planning, for apps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from semantic_parrot.adapters.langchain.instrument import install, uninstall
from semantic_parrot.adapters.langchain.planner import DISABLED, PLANNER
from semantic_parrot.adapters.stats import Stats

__all__ = ["disabled", "install", "stats", "uninstall"]


def stats() -> Stats:
    """What planning has saved and wasted since the process started."""
    return PLANNER.statistics.snapshot()


@contextmanager
def disabled() -> Iterator[None]:
    """No planning inside: every call goes out by itself. For the running thread or task, and what it starts."""
    token = DISABLED.set(True)
    try:
        yield
    finally:
        DISABLED.reset(token)
