"""One execution of a program: it launches calls as they become ready and logs what happens.

The log is the truth: a reader replays it from any point and then follows it. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semantic_parrot.core import events
from semantic_parrot.core.analysis import Step
from semantic_parrot.core.audience import Audience
from semantic_parrot.core.calls import Calls
from semantic_parrot.core.errors import Cancelled, DeadlineExceeded, ParrotError
from semantic_parrot.core.events import CallFailed, CallFinished, Event, RunUsage, Status
from semantic_parrot.core.execution import Ready, execute, recall
from semantic_parrot.core.graph import Aborted
from semantic_parrot.core.hints import Hints, because, hints_of
from semantic_parrot.core.instance import Node
from semantic_parrot.core.journal.values import Stored
from semantic_parrot.core.log import Keeper, Log
from semantic_parrot.core.outside import outside
from semantic_parrot.core.past import Past
from semantic_parrot.core.program import Program
from semantic_parrot.core.shape import Prompt
from semantic_parrot.core.spoken import Spoken
from semantic_parrot.core.trace import Trace
from semantic_parrot.core.usage import Tally
from semantic_parrot.core.value import JSON
from semantic_parrot.core.wire import content_key, render

if TYPE_CHECKING:
    from semantic_parrot.core.session import Session


class Run:
    """`calls` executes its calls. `grace`: seconds that a foreground run outlives its last reader. `durable`: nobody is
    to know what it tells before that is durable, which `keep` sees to. `stored`: it began in an earlier server, and
    goes on from there."""

    def __init__(
        self,
        program: Program,
        session: Session,
        calls: Calls,
        grace: float,
        *,
        durable: bool = False,
        stored: Stored | None = None,
    ) -> None:
        self.id = f"run_{uuid.uuid4().hex}" if stored is None else stored.run.id
        self.past = Past(() if stored is None else stored.events)
        self.terms = program.terms()
        self.durable = durable
        self.session = session
        self.tenant = session.tenant
        self.status: Status = "queued"
        self.trace = Trace(self.id, session.tenant)
        if stored is not None:
            self.trace.began(stored.run.created)
        self._started = self.trace.begun
        self._calls = calls
        self._hints: dict[str, Hints] = {}
        self._tally = Tally(program.parrot.quota)
        self._nodes: dict[str, Node[Run]] = {}
        self._open: dict[str, Node[Run]] = {}
        self._finished: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        most = program.parrot.max_concurrency
        #: Who executes a call of the run holds one of these meanwhile, first come, first served.
        self.turns: AbstractAsyncContextManager[None] = nullcontext() if most is None else asyncio.Semaphore(most)
        self._log = Log(self.past.events)
        self._recalled: deque[tuple[Ready, CallFinished | CallFailed]] = deque()
        self.spoken = Spoken()
        self.audience = Audience(
            self.terms.parrot.lifetime, grace, lambda: self.ended, lambda: self.cancel("the client has gone")
        )
        self._on_done: list[Callable[[Run], None]] = []
        self._on_forgotten: list[Callable[[], None]] = []
        self.emit(events.RunStarted(id=self.id))

    # What the session tells it, after each change of the graph.

    def adopt(self, node: Node[Run]) -> None:
        """`node` belongs to this run, by its program or from a map or branch of it."""
        self._nodes[node.output] = self._open[node.output] = node

    def launch(self, node: Node[Run]) -> None:
        """`node`, a call, has all its inputs: announce the request it is now, then execute it."""
        assert isinstance(node.spec, Prompt)
        body = render(node.spec.shape.request, self.session.graph.inputs(node))
        key, at = content_key(body), time.monotonic() - self._started
        hints = hints_of(self.session, self, node, key, self._tally.meter(self._calls.price(body["model"])))
        self._hints[node.output] = hints
        self.trace.launched(node, hints, self.session.analysis.step(node.output), at)
        self.trace.calls[node.output].outside = self.outside(node)
        self.session.sharing.join(self.id, node.id, hints.prefixes or ())
        ready = Ready(node.id, node.output, node.site, self._seeded(body, node.id), key, at, hints)
        self.status = "running"
        self.emit(events.CallReady(id=ready.id, content_key=ready.key))
        end = self.past.end(ready.id)
        if end is not None:
            self._recalled.append((ready, end))
            return
        task = asyncio.create_task(execute(self, ready, self._calls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def outside(self, node: Node[Run]) -> tuple[tuple[str, str], ...]:
        """(run, call) of those of other runs whose values the call `node` reads, or its client says it does."""
        stated = self.terms.parrot.sources.get(node.site, ())
        return tuple(dict.fromkeys((*outside(self.session.graph, node), *(source.place for source in stated))))

    def recall(self) -> None:
        """Give the calls that ended in an earlier server the ends that they had."""
        while self._recalled:
            recall(self, *self._recalled.popleft())

    def _seeded(self, body: dict[str, Any], call: str) -> dict[str, Any]:
        """With a seed, if it has none: what is drawn for a durable run must be the same when it is drawn again."""
        if not self.durable or body.get("seed") is not None:
            return body
        digest = hashlib.blake2b(f"{self.id}/{call}".encode(), digest_size=8).digest()
        return {**body, "seed": int.from_bytes(digest) >> 1}

    def hurry(self, node: Node[Run], step: Step) -> None:
        """Somebody waits for something that needs `node`, whose plan is `step` now."""
        hints = self._hints.get(node.output)
        if hints is not None and self._calls.hurry(hints.meter):
            self._hints[node.output] = replace(hints, objective=step.objective, because=because(step))
            self.trace.hurried(node.output, step)

    def abort(self, aborted: Aborted[Run]) -> None:
        """A node of this run will never be ready."""
        node = aborted.node
        if self._open.pop(node.output, None) is not None and isinstance(node.spec, Prompt):
            self.trace.aborted(node, self.session.analysis.find(node.output), aborted.error.message)
            self.emit(events.CallAborted(id=node.id, reason=aborted.error.message))

    def settled(self, node: Node[Run]) -> None:
        """The output of `node` has its value or its error; a call stays open until its last event is told."""
        if not isinstance(node.spec, Prompt):
            self.trace.linked(node)
            self._open.pop(node.output, None)

    def maybe_finish(self) -> None:
        """To be told once the session has told everything else."""
        if not self._open and not self.ended:
            self._finish("finished" if self._complete() else "failed")

    # What comes of executing a call.

    def hints(self, output: str) -> Hints:
        """Of a call that is being executed."""
        return self._hints[output]

    def told(self, output: str, event: events.CallFinished | events.CallFailed) -> None:
        """The call that makes `output` has ended, and whoever waited for it knows: `event` is its last."""
        del self._open[output], self._hints[output]
        self.spoken.over(output)
        self._finished[event.id] = event.model_dump(mode="json", exclude={"type", "id"})
        self.emit(event)
        self.maybe_finish()

    def stop_past_quota(self) -> bool:
        """Whether the quota is used up; then what goes on is stopped."""
        exceeded = self._tally.exceeded
        if exceeded:
            self._stop(self._tally.over, "failed")
        return exceeded

    def emit(self, event: Event) -> None:
        if not self.past.told(event):
            self._log.append(event)
            self.spoken.changed()

    # Being durable.

    def keep(self, keeper: Keeper) -> None:
        """`keeper` makes durable what it tells. To be called before anybody could read it, or its calls begin."""
        assert self.durable
        self._log.keep(keeper)

    async def settle(self) -> None:
        """Until what it has told by now is durable."""
        await self._log.settle()

    @property
    def safe(self) -> bool:
        """Whether all that it has told is durable, if it is to be."""
        return self._log.settled

    def drop(self, reason: str) -> None:
        """It could not be made durable: it never was."""
        self._log.drop()
        self.cancel(reason)

    def leave(self) -> None:
        """Stop, and tell nothing of it: a later server goes on."""
        for task in self._tasks:
            task.cancel()
        self._log.close()

    # The end.

    def cancel(self, reason: str = "the run was cancelled") -> None:
        """Stop what runs, abort what waits. Nothing happens to a run that has ended."""
        self._stop(lambda where: Cancelled(reason, where=where), "cancelled")

    def expire(self) -> None:
        """The deadline has come: what is not there now is an error."""
        late = f"not there within the run's deadline of {self.terms.parrot.deadline_ms:g} ms"
        self._stop(lambda where: DeadlineExceeded(late, where=where), "failed")

    def _stop(self, error: Callable[[str], ParrotError], status: Status) -> None:
        """What is not there fails with `error` (of the variable's name); `status`: of the run, if that was wanted."""
        if self.ended:
            return
        for task in self._tasks:
            task.cancel()
        self.status = status  # so that what follows does not end the run before all is told
        gone, self._open = self._open, {}
        for node in gone.values():  # first of all, as long as their plan is known
            if isinstance(node.spec, Prompt):
                self.trace.aborted(node, self.session.analysis.find(node.output), error(node.output).message)
        self._hints.clear()
        for node in gone.values():
            if not self.session.graph.variables[node.output].settled:
                self.session.fail(node.output, error(node.output))
            if isinstance(node.spec, Prompt):
                self.emit(events.CallAborted(id=node.id, reason=error(node.output).message))
        self._finish("finished" if status == "failed" and self._complete() else status)

    def _complete(self) -> bool:
        return set(self.terms.wanted) <= set(self.outputs())

    def _finish(self, status: Status) -> None:
        self.status = status
        self._tally.closed = True
        usage = self._tally.report()
        self.trace.ended(status, usage)
        self.emit(
            events.RunFinished(id=self.id, status=status, outputs=self.outputs(), errors=self.errors(), usage=usage)
        )
        for told in self._on_done:
            told(self)

    @property
    def background(self) -> bool:
        """Whether it goes on without anybody, and after a restart."""
        return self.terms.parrot.lifetime == "background"

    def forgotten(self) -> None:
        """It can't be read any more."""
        for told in self._on_forgotten:
            told()

    def on_forgotten(self, told: Callable[[], None]) -> None:
        self._on_forgotten.append(told)

    def on_done(self, told: Callable[[Run], None]) -> None:
        self._on_done.append(told)

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "failed", "cancelled")

    # Reading it.

    @property
    def last_event(self) -> int:
        """The number of the newest event."""
        return len(self._log)

    def outputs(self) -> dict[str, JSON]:
        """The wanted outputs that have a value."""
        return self.session.graph.values(self.terms.wanted)

    def errors(self) -> dict[str, dict[str, Any]]:
        """Error body, with the id of the node under its kind, by variable: of all that failed or were aborted."""
        found: dict[str, dict[str, Any]] = {}
        for name, node in self._nodes.items():
            error = self.session.graph.variables[name].error
            if error is not None:
                found[name] = {**error.body()["error"], node.spec.kind: node.id}
        return found

    @property
    def usage(self) -> RunUsage:
        """So far."""
        return self._tally.report()

    @property
    def nodes(self) -> Collection[Node[Run]]:
        """All of them, in the order in which they came."""
        return self._nodes.values()

    @property
    def open(self) -> Collection[Node[Run]]:
        """The nodes that have not ended."""
        return self._open.values()

    def tokens(self, call_ids: Collection[str]) -> int:
        """Tokens generated by those of `call_ids` that finished."""
        done = (self._finished[name] for name in call_ids if name in self._finished)
        return sum(call["response"]["usage"]["completion_tokens"] for call in done if "response" in call)

    def answered(self, call_ids: Collection[str]) -> int:
        """How many of `call_ids` finished with an answer."""
        return sum("response" in self._finished.get(name, ()) for name in call_ids)

    def result(self) -> dict[str, Any]:
        """The JSON body of GET and POST /v1/runs."""
        return {
            "id": self.id,
            "status": self.status,
            "outputs": self.outputs(),
            "errors": self.errors(),
            "calls": self._finished,
            "usage": self._tally.report().model_dump(),
        }

    def events(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """(number, event), numbered from 1: those past `after`, then each as it happens, to `run.finished`."""
        return self._log.read(after)

    def events_together(self, after: int = 0) -> AsyncIterator[list[tuple[int, Event]]]:
        """The same, as many as there are at a time."""
        return self._log.read_together(after)

    async def wait(self) -> None:
        """Until the run has ended."""
        await self._log.wait()
