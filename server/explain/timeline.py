"""Where things stand in the picture of a run: a row a call, on one time axis. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from typing import Any

#: Pixels.
LEFT, WIDTH, ROW, TOP, BAR = 210, 760, 24, 26, 14

#: Rows that are drawn, and dependencies of one call.
ROWS, EDGES = 500, 64


@dataclass(frozen=True, slots=True)
class Bar:
    phase: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """`number`: of the call in the report. `edges`: SVG paths, of what it needs and of what needs it."""

    number: int
    y: float
    bars: tuple[Bar, ...]
    edges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """Around the rows of a task group."""

    group: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Picture:
    """`ticks`: (seconds, x). `more`: calls that are not drawn."""

    rows: tuple[Row, ...]
    outlines: tuple[Outline, ...]
    ticks: tuple[tuple[float, float], ...]
    height: float
    more: int


def draw(report: Mapping[str, Any]) -> Picture:
    calls = report["calls"]
    order = in_order(calls)
    scale = WIDTH / max(report["seconds"], 1e-9)
    at = {calls[number]["id"]: (row, calls[number]) for row, number in enumerate(order[:ROWS])}
    needed: dict[str, list[str]] = {}
    for name, (_, call) in at.items():
        for need in call["needs"]:
            needed.setdefault(need, []).append(name)
    rows = []
    for row, number in enumerate(order[:ROWS]):
        call = calls[number]
        pairs = [(need, call["id"]) for need in call["needs"] if need in at]
        pairs += [(call["id"], reader) for reader in needed.get(call["id"], ())]
        edges = tuple(_edge(at[a], at[b], scale) for a, b in pairs[:EDGES] if at[b][1]["times"]["ready"] is not None)
        rows.append(Row(number, TOP + row * ROW, bars(call, scale), edges))
    height = TOP + len(rows) * ROW + 6
    marks = tuple((t, LEFT + t * scale) for t in ticks(report["seconds"]))
    return Picture(tuple(rows), tuple(_outlines(calls, order[:ROWS])), marks, height, len(order) - len(rows))


def in_order(calls: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the calls as they began, task groups together; last, those that did not begin."""
    began: dict[int, float] = {}
    for call in calls:
        if call["task_group"] is not None and call["times"]["ready"] is not None:
            group = call["task_group"]["id"]
            began[group] = min(began.get(group, inf), call["times"]["ready"])

    def key(number: int) -> tuple[float, int, float, int]:
        call = calls[number]
        ready = inf if call["times"]["ready"] is None else call["times"]["ready"]
        if call["task_group"] is None:
            return ready, 0, ready, number
        return began.get(call["task_group"]["id"], inf), call["task_group"]["id"], ready, number

    return sorted(range(len(calls)), key=key)


def spans(call: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(phase, from, to) in seconds of the run. `unknown`: it runs, or did not get to its end."""
    times = call["times"]
    if times["ready"] is None:
        return []
    if call["state"] != "finished":
        end = times["ready"] + times["so_far"] if times["end"] is None else times["end"]
        return [("unknown", times["ready"], end)]
    at, found = times["ready"], []
    for phase in ("queued", "prefill", "decode"):
        found.append((phase, at, at + times[phase]))
        at += times[phase]
    return found


def bars(call: Mapping[str, Any], scale: float) -> tuple[Bar, ...]:
    return tuple(
        Bar(phase, LEFT + begun * scale, max((ended - begun) * scale, 0.75))
        for phase, begun, ended in spans(call)
        if ended > begun or phase != "queued"
    )


def _edge(source: tuple[int, Mapping[str, Any]], target: tuple[int, Mapping[str, Any]], scale: float) -> str:
    """From the end of one bar to the beginning of the other."""
    times = source[1]["times"]
    end = times["end"] if times["end"] is not None else times["ready"] or 0.0
    x0, y0 = LEFT + end * scale, TOP + source[0] * ROW + ROW / 2
    x1, y1 = LEFT + target[1]["times"]["ready"] * scale, TOP + target[0] * ROW + ROW / 2
    return f"M{x0:.1f},{y0:.1f} C{x0 + 24:.1f},{y0:.1f} {x1 - 24:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"


def _outlines(calls: Sequence[Mapping[str, Any]], order: Sequence[int]) -> list[Outline]:
    places: dict[int, list[int]] = {}
    for row, number in enumerate(order):
        if calls[number]["task_group"] is not None:
            places.setdefault(calls[number]["task_group"]["id"], []).append(row)
    return [
        Outline(group, TOP + rows[0] * ROW, (rows[-1] - rows[0] + 1) * ROW)
        for group, rows in places.items()
        if rows[-1] - rows[0] + 1 == len(rows) > 1
    ]


def ticks(longest: float) -> list[float]:
    """Round times for the axis, four to ten of them."""
    if longest <= 0:
        return [0.0]
    step = 10.0 ** floor(log10(longest / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if longest / (step * factor) <= 8)
    digits = max(0, ceil(-log10(step)) + 1)
    return [round(i * step, digits) for i in range(int(longest / step) + 1)]
