"""What a run remembers of its calls for its report: small, and apart from the graph, which it outlives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from semantic_parrot.core.analysis import Class, Group, Step
from semantic_parrot.core.events import RunUsage, Status, Timings
from semantic_parrot.core.hints import Hints, because

if TYPE_CHECKING:
    from semantic_parrot.core.engines.protocol import Done, Placed, Usage
    from semantic_parrot.core.instance import Node, Owner
    from semantic_parrot.core.sharing import Shared

#: `ready`: it has its inputs, and is queued or being filled. `decoding`: some of its text is there.
State = Literal["waiting", "ready", "decoding", "finished", "failed", "aborted"]


@dataclass(slots=True, eq=False)
class CallTrace:
    """One call; times in seconds from the run's start. `reads`: its variables; `after`: also the one that the map or
    branch around it went by. `expected`: seconds that it was planned to take on an idle engine, `latest`: its planned
    latest start. `prefixes`: names of its prompt's, once it was ready; `shared`: who shared them, once the run is
    closed. `waits_for`: the variables that are missing. `outside`: (run, call) of other runs whose values it reads."""

    id: str
    output: str
    reads: tuple[str, ...]
    after: str | None
    state: State
    objective: Class | None = None
    because: str = ""
    group: Group | None = None
    expected: float | None = None
    latest: float | None = None
    prefixes: tuple[int, ...] = ()
    shared: tuple[Shared, ...] = ()
    ready: float | None = None
    first: float | None = None
    ended: float | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    placed: Placed | None = None
    reason: str | None = None
    waits_for: tuple[str, ...] = ()
    outside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A transform, map or branch that has made its output: through it one call depends on another."""

    kind: str
    id: str
    reads: tuple[str, ...]


class Trace:
    """Of one run. `calls` and `links` are by output, and have those that came as far as being ready, or never will.
    `planned`: seconds that the run was planned to take, as soon as that is known. Owned by the event loop."""

    def __init__(self, run_id: str, tenant: str = "") -> None:
        self.id = run_id
        self.tenant = tenant
        self.status: Status = "queued"
        self.created = time.time()
        self.begun = time.monotonic()
        self.seconds: float | None = None
        self.usage = RunUsage()
        self.planned = 0.0
        self.calls: dict[str, CallTrace] = {}
        self.links: dict[str, Link] = {}

    def began(self, created: float) -> None:
        """It began at `created` (Unix time), in an earlier server."""
        self.begun -= max(self.created - created, 0.0)
        self.created = created

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begun

    def launched(self, node: Node[Owner], hints: Hints, step: Step, at: float) -> None:
        """The call `node` has all its inputs, `at` so many seconds from the start."""
        self.status = "running"
        call = self.calls[node.output] = self.plan(node, step)
        call.state, call.ready, call.prefixes = "ready", at, hints.prefixes or ()

    def hurried(self, output: str, step: Step) -> None:
        """The call is to be made sooner than was planned, by `step`."""
        self.calls[output].objective, self.calls[output].because = step.objective, because(step)

    def spoke(self, output: str) -> None:
        """Some text of the call's answer has come."""
        call = self.calls[output]
        if call.first is None:
            call.first, call.state = self.now(), "decoding"

    def finished(self, output: str, done: Done, timings: Timings) -> None:
        call = self.calls[output]
        call.state, call.ended = "finished", self.now()
        call.usage, call.timings, call.placed = done.usage, timings, done.placed

    def failed(self, output: str, reason: str) -> None:
        call = self.calls[output]
        call.state, call.ended, call.reason = "failed", self.now(), reason

    def aborted(self, node: Node[Owner], step: Step | None, reason: str) -> None:
        """The call `node` will never have an answer. `step`: its plan, as long as there is one."""
        call = self.calls.get(node.output)
        if call is None:
            call = self.calls[node.output] = self.plan(node, step)
        if call.ended is None:
            call.state, call.ended, call.reason = "aborted", self.now(), reason

    def linked(self, node: Node[Owner]) -> None:
        """`node`, a transform, map or branch, has made its output, or never will."""
        self.links[node.output] = Link(node.spec.kind, node.id, self._needs(node))

    def ended(self, status: Status, usage: RunUsage) -> None:
        self.status, self.usage, self.seconds = status, usage, self.now()

    def plan(self, node: Node[Owner], step: Step | None, waits_for: Sequence[str] = ()) -> CallTrace:
        """A trace of a call that has not begun; the run does not keep it."""
        call = CallTrace(node.id, node.output, node.reads, node.scope.after, "waiting")
        call.waits_for = tuple(waits_for)
        if step is not None:
            call.objective, call.because, call.group = step.objective, because(step), step.group
            call.expected, call.latest = step.planned.seconds, step.latest - self.begun
            self.planned = max(self.planned, step.job.submitted + step.job.length - self.begun)
        return call

    @staticmethod
    def _needs(node: Node[Owner]) -> tuple[str, ...]:
        return node.reads if node.scope.after is None else (*node.reads, node.scope.after)
