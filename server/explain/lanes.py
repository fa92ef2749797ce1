"""The calls of a run engine by engine, in as few lanes as it takes for none to lie on another."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semantic_parrot.server.explain.timeline import spans

#: Of calls that have come to no engine, or not yet said to which.
NOWHERE = "no engine yet"


@dataclass(frozen=True, slots=True)
class Stay:
    """One call: its number in the report, its lane, and (phase, from, to) in seconds of the run, without a gap."""

    number: int
    lane: int
    spans: Sequence[tuple[str, float, float]]


def lanes(report: Mapping[str, Any]) -> dict[str, list[Stay]]:
    """The calls that began, as they began, by engine; engines by name, NOWHERE last."""
    calls = report["calls"]
    began = sorted((call["times"]["ready"], i) for i, call in enumerate(calls) if call["times"]["ready"] is not None)
    found: dict[str, list[Stay]] = {}
    ends: dict[str, list[tuple[float, int]]] = {}  # of each lane: a heap
    for ready, number in began:
        engine = calls[number]["engine"]
        name = NOWHERE if engine is None else engine["name"]
        own, stay = ends.setdefault(name, []), spans(calls[number])
        lane = heapq.heappop(own)[1] if own and own[0][0] <= ready else len(own)
        heapq.heappush(own, (stay[-1][2], lane))
        found.setdefault(name, []).append(Stay(number, lane, stay))
    return dict(sorted(found.items(), key=lambda item: (item[0] == NOWHERE, item[0])))
