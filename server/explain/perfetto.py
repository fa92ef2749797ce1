"""The report of a run in Chrome's trace format, which Perfetto (ui.perfetto.dev) opens: a process an engine, a slice a
call with its phases in it, an arrow from a call to each that read its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semantic_parrot.server.explain.lanes import Stay, lanes

Event = dict[str, Any]


def perfetto(report: Mapping[str, Any]) -> dict[str, Any]:
    """Times in microseconds from the run's start, which is `otherData.created` in Unix seconds."""
    events: list[Event] = []
    at: dict[str, tuple[int, Stay]] = {}
    for process, (engine, stays) in enumerate(lanes(report).items(), start=1):
        events.append({"ph": "M", "pid": process, "name": "process_name", "args": {"name": engine}})
        for lane in range(1 + max(stay.lane for stay in stays)):
            name = {"ph": "M", "pid": process, "tid": lane, "name": "thread_name", "args": {"name": f"lane {lane}"}}
            events.append(name)
        for stay in stays:
            call = report["calls"][stay.number]
            at[call["id"]] = process, stay
            events += _slices(process, stay, call)
    events += _arrows(report, at)
    about = {key: report[key] for key in ("id", "status", "created", "seconds")}
    return {"displayTimeUnit": "ms", "traceEvents": events, "otherData": about}


def _slices(process: int, stay: Stay, call: Mapping[str, Any]) -> list[Event]:
    place = {"ph": "X", "pid": process, "tid": stay.lane}
    about = {key: call[key] for key in ("output", "state", "objective", "because", "task_group", "critical", "real")}
    begun, ended = _us(stay.spans[0][1]), _us(stay.spans[-1][2])
    found = [{**place, "name": call["id"], "cat": "call", "ts": begun, "dur": ended - begun, "args": about}]
    for phase, since, until in stay.spans:
        since, until = min(_us(since), ended), min(_us(until), ended)
        found.append({**place, "name": phase, "cat": "phase", "ts": since, "dur": until - since})
    return found


def _arrows(report: Mapping[str, Any], at: Mapping[str, tuple[int, Stay]]) -> list[Event]:
    found: list[Event] = []
    for call in report["calls"]:
        for need in call["needs"]:
            if call["id"] not in at or need not in at:
                continue
            (source, first), (target, second) = at[need], at[call["id"]]
            link = {"cat": "needs", "name": "needs", "id": len(found) // 2 + 1}
            # An arrow ends inside the slice that it belongs to, not on its edge.
            leaves = max(_us(first.spans[-1][2]) - 1, _us(first.spans[0][1]))
            found.append({**link, "ph": "s", "pid": source, "tid": first.lane, "ts": leaves})
            arrives = {"ph": "f", "bp": "e", "pid": target, "tid": second.lane, "ts": _us(second.spans[0][1])}
            found.append({**link, **arrives})
    return found


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
