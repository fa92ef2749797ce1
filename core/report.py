"""What became of a run, call by call, as JSON: `GET /v1/runs/{id}/report`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from semantic_parrot.core.analysis.pieces import length_of
from semantic_parrot.core.dependencies import Dependencies
from semantic_parrot.core.reported import call_report, phases
from semantic_parrot.core.sharing import CALLS, RUNS, Shared
from semantic_parrot.core.snapshot import Snapshot
from semantic_parrot.core.trace import CallTrace

Report = dict[str, Any]


def report(run: Snapshot) -> Report:
    """All times in seconds; when something happened: from the start of the run."""
    calls, now = run.calls, run.now
    depends = Dependencies(calls, run.links, run.seconds)
    path = dict.fromkeys(depends.path())
    groups: dict[int, list[str]] = {}
    for call in calls.values():
        if call.group is not None:
            groups.setdefault(call.group.whole().id, []).append(call.id)
    rows = []
    for output, call in calls.items():
        row = call_report(call, now)
        waited = depends.waited.get(output)
        row["needs"] = [calls[name].id for name in islice(depends.needs(output), NAMED)]
        row["outside"] = [{"run": other, "call": name} for other, name in call.outside]
        row["waited_for"] = None if waited is None else calls[waited].id
        row["task_group"] = _group(call, groups)
        row["prefixes"] = _prefixes(call, run.id, run.shared[output])
        row["slack"] = depends.slack.get(output)
        row["critical"] = output in path
        rows.append(row)
    return {
        "id": run.id,
        "status": run.status,
        "created": run.created,
        "retold": run.retold,
        "seconds": now,
        "planned_seconds": run.planned,
        "idle_seconds": _idle(calls.values(), now),
        "critical_path": _critical([calls[output] for output in path], now),
        "usage": run.usage.model_dump(),
        "reused": run.usage.cached_tokens / run.usage.prompt_tokens if run.usage.prompt_tokens else 0.0,
        "hops": _hops(calls, depends),
        "calls": rows,
    }


#: Calls that one call needs, and members of a task group, that are named.
NAMED = 100


def _group(call: CallTrace, groups: Mapping[int, list[str]]) -> Report | None:
    if call.group is None:
        return None
    group = call.group.whole()
    return {"id": group.id, "size": group.size, "calls": groups[group.id][:NAMED]}


def _prefixes(call: CallTrace, run: str, shared: Sequence[Shared]) -> list[Report]:
    """Longest first; of those that the same calls share, the longest. `id` is the same for all who share it.
    `characters` of the prompt's beginning (with what marks the roles of its messages) are read by `count` calls, this
    one included; `own` of them are this run's, the first others in `calls`; `runs`: other runs, the latest."""
    rows: list[Report] = []
    for name, readers, own in reversed(shared):
        if rows and rows[-1]["count"] == readers.count:
            continue
        others = [(other, them) for other, them in readers.runs.items() if other != run][-RUNS:]
        rows.append(
            {
                "id": f"{name:x}",
                "characters": length_of(name),
                "count": readers.count,
                "own": own.count,
                "calls": [mate for mate in own.calls if mate != call.id][:CALLS],
                "runs": {other: {"count": them.count, "calls": them.calls[:CALLS]} for other, them in others},
            }
        )
    return rows


def _idle(calls: Iterable[CallTrace], now: float) -> float:
    """Seconds in which no call of the run was on an engine."""
    idle, at = 0.0, 0.0
    for begun, ended in sorted(span for call in calls if (span := _on_engine(call, now)) is not None):
        idle += max(0.0, begun - at)
        at = max(at, ended)
    return idle + max(0.0, now - at)


def _on_engine(call: CallTrace, now: float) -> tuple[float, float] | None:
    if call.ready is None:
        return None
    return call.ready + phases(call)[0], now if call.ended is None else call.ended


def _critical(path: Sequence[CallTrace], now: float) -> Report:
    """`seconds`: from the run's start to the end of the path's last call; of them, `on_engines` in its calls."""
    parts = [phases(call) for call in path]
    return {
        "calls": [call.id for call in path],
        "seconds": (path[-1].ended or now) if path else 0.0,
        "queued": sum(queued for queued, _, _ in parts),
        "prefill": sum(prefill for _, prefill, _ in parts),
        "decode": sum(decode for _, _, decode in parts),
    }


def _hops(calls: Mapping[str, CallTrace], depends: Dependencies) -> Report:
    """`dependent`: calls that a client would have had to wait for others to send, and the server started by itself;
    `deepest`: of them, one after the other."""
    begun = {output for output, call in calls.items() if call.ready is not None}
    return {
        "calls": len(begun),
        "dependent": sum(depends.depth.get(output, 1) > 1 for output in begun),
        "deepest": max((depends.depth.get(output, 1) for output in begun), default=1) - 1,
    }
