"""The trace of a run that only the journal knows: what its events say, for reports that come late, or after a restart.

The journal keeps what clients were told. So there are no plans, prefixes and predictions in tokens, of a call that
failed no times, and of calls in maps and branches not what they read.
"""

from __future__ import annotations

from typing import cast, get_args

from semantic_parrot.core.analysis import Class, Group
from semantic_parrot.core.engines.protocol import Placed
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.events import CallAborted, CallFailed, CallFinished, CallReady, RunFinished
from semantic_parrot.core.journal.values import Stored
from semantic_parrot.core.past import done_of
from semantic_parrot.core.program import Call, Program, parse_program
from semantic_parrot.core.trace import CallTrace, Link, Trace


def trace_of(stored: Stored) -> Trace:
    """Of a run that has ended."""
    end = stored.events[-1]
    assert isinstance(end, RunFinished)
    trace = Trace(stored.run.id, stored.run.tenant)
    trace.created, trace.status, trace.usage = stored.run.created, end.status, end.usage
    calls = _Calls(stored)
    trace.links = calls.links
    for event in stored.events:
        if isinstance(event, CallReady):
            calls.find(event.id)
        elif isinstance(event, CallFinished):
            calls.finish(event)
        elif isinstance(event, CallFailed):
            call = calls.find(event.id)
            call.state, call.reason = "failed", event.body["error"]["message"]
        elif isinstance(event, CallAborted):
            call = calls.find(event.id)
            call.state, call.reason = "aborted", event.reason
    trace.calls = calls.found
    latest = max((call.ended or 0.0 for call in trace.calls.values()), default=0.0)
    trace.seconds = max(latest, (stored.run.ended or stored.run.created) - stored.run.created)
    return trace


class _Calls:
    """`found` by output; those that the program does not name, by their ids. `links`: of the program's own nodes."""

    def __init__(self, stored: Stored) -> None:
        self.found: dict[str, CallTrace] = {}
        self.links: dict[str, Link] = {}
        self._known: dict[str, Call] = {}
        self._groups: dict[int, Group] = {}
        try:
            program = parse_program(stored.body)
        except ParrotError:  # of an earlier version, which took what this one does not
            program = Program()
        for node in program.nodes():
            if isinstance(node, Call):
                self._known[node.id] = node
            else:
                self.links[node.output] = Link(node.kind, node.id, tuple(node.inputs()))

    def find(self, id: str) -> CallTrace:
        node = self._known.get(id)
        output = id if node is None else node.output
        call = self.found.get(output)
        if call is None:
            call = self.found[output] = CallTrace(id, output, () if node is None else node.inputs(), None, "ready")
        return call

    def finish(self, event: CallFinished) -> None:
        call, done, times = self.find(event.id), done_of(event), event.timings
        call.state, call.usage, call.timings = "finished", done.usage, times
        call.ready, call.ended = times.ready, times.ready + times.queued + times.prefill + times.decode
        plan = event.schedule
        if plan is None:
            return
        if plan.objective in get_args(Class):
            call.objective, call.because = cast(Class, plan.objective), plan.because
        if plan.task_group is not None:
            call.group = self._groups.setdefault(plan.task_group, Group(plan.task_group, plan.group_size))
        if plan.engine:
            held, alone = plan.prefix.tokens, plan.single_flight
            call.placed = Placed(plan.engine, plan.why, held, plan.predicted, alone, room=0, engines=0)
