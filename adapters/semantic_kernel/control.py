"""Switches and counters of planning, for apps."""

from __future__ import annotations

from semantic_parrot.adapters.planning import disabled
from semantic_parrot.adapters.semantic_kernel.filters import attach, detach
from semantic_parrot.adapters.semantic_kernel.planner import PLANNER
from semantic_parrot.adapters.stats import Stats

__all__ = ["attach", "detach", "disabled", "stats"]


def stats() -> Stats:
    """What planning has saved and wasted since the process started."""
    return PLANNER.statistics.snapshot()
