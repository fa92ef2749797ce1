"""Switches and counters of planning, for apps."""

from __future__ import annotations

from semantic_parrot.adapters.langchain.instrument import install, uninstall
from semantic_parrot.adapters.langchain.planner import PLANNER
from semantic_parrot.adapters.planning import disabled
from semantic_parrot.adapters.stats import Stats

__all__ = ["disabled", "install", "stats", "uninstall"]


def stats() -> Stats:
    """What planning has saved and wasted since the process started."""
    return PLANNER.statistics.snapshot()
