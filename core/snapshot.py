"""What is known of a run at one moment, apart from everything that goes on: taken on the event loop, which it costs
microseconds a call; what is made of it may be made in any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache

from semantic_parrot.core.events import RunUsage, Status
from semantic_parrot.core.run import Run
from semantic_parrot.core.shape import Prompt
from semantic_parrot.core.sharing import Readers, Shared
from semantic_parrot.core.trace import CallTrace, Link, Trace


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at `now` seconds from its start; `seconds`: that it took, None before its end. `calls` and `links` are by
    output, `shared` too: the prefixes of the calls that share any, shortest first. `retold`: from the journal,
    which has less than the server knew."""

    id: str
    status: Status
    created: float
    now: float
    seconds: float | None
    planned: float
    usage: RunUsage
    calls: Mapping[str, CallTrace]
    links: Mapping[str, Link]
    shared: Mapping[str, Sequence[Shared]]
    retold: bool = False


def snapshot(run: Run) -> Snapshot:
    """Of a run that can be read. What waits shares with the calls of its session, and with what is ready anywhere."""
    session = run.session
    variables = session.graph.variables
    calls = dict(run.trace.calls)
    if run.trace.seconds is None:  # it goes on while its report is made
        calls = {output: copy(call) for output, call in calls.items()}
    for node in run.open:
        if isinstance(node.spec, Prompt) and node.output not in calls:
            missing = [name for name in node.reads if not variables[name].settled]
            call = calls[node.output] = run.trace.plan(node, session.analysis.find(node.output), missing)
            call.prefixes = session.prefixes.prefixes(node.output)
            call.outside = run.outside(node)

    @cache
    def readers(prefix: int) -> Readers:
        found = session.sharing.readers(prefix)
        for output in session.prefixes.sharers(prefix):
            node = variables[output].producer
            if node is not None and node.output not in node.owner.trace.calls:
                found.add(node.owner.id, node.id)
        return found

    shared = {}
    for output, call in calls.items():
        # Most prefixes have one reader. One that is ready and open is known to both, so this may take one for two.
        several = [p for p in call.prefixes if session.sharing.count(p) + len(session.prefixes.sharers(p)) > 1]
        found = ((name, readers(name)) for name in several)
        shared[output] = [(name, there, there.runs[run.id]) for name, there in found if there.count > 1]
    return _snapshot(run.trace, run.usage, calls, shared)


def snapshot_of_past(trace: Trace) -> Snapshot:
    """Of a run that can't be read any more."""
    once = cache(Readers.copy)
    shared = {
        output: [(name, once(readers), own) for name, readers, own in call.shared]
        for output, call in trace.calls.items()
    }
    return _snapshot(trace, trace.usage, trace.calls, shared)


def snapshot_of_retold(trace: Trace) -> Snapshot:
    """Of a run that only the journal knows, and `trace` what it says."""
    return replace(snapshot_of_past(trace), retold=True)


def _snapshot(
    trace: Trace, usage: RunUsage, calls: Mapping[str, CallTrace], shared: Mapping[str, Sequence[Shared]]
) -> Snapshot:
    now = trace.now() if trace.seconds is None else trace.seconds
    return Snapshot(
        trace.id,
        trace.status,
        trace.created,
        now,
        trace.seconds,
        trace.planned,
        usage,
        calls,
        dict(trace.links),
        shared,
    )
