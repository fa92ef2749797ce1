"""One execution of a program: it launches calls as they become ready and logs what happens.

The log is the truth: a reader replays it from any point and then follows it. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semantic_parrot.core import events
from semantic_parrot.core.analysis import objectives
from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import Cancelled, InternalError, ParrotError
from semantic_parrot.core.events import Event, Status
from semantic_parrot.core.graph import Aborted, Node
from semantic_parrot.core.program import Objective, Program
from semantic_parrot.core.response import completion
from semantic_parrot.core.wire import content_key, render

if TYPE_CHECKING:
    from semantic_parrot.core.session import Session

#: Executes one rendered request; raises ParrotError at once or on the way.
Execute = Callable[[Mapping[str, Any], Objective], AsyncGenerator[Delta | Done, None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A call that may go to an engine: its rendered request, that request's content key, seconds since the start."""

    node: Node[Run]
    body: dict[str, Any]
    key: str
    at: float


class Run:
    """`grace`: seconds that a foreground run outlives its last reader."""

    def __init__(self, program: Program, session: Session, execute: Execute, grace: float) -> None:
        self.id = f"run_{uuid.uuid4().hex}"
        self.program = program
        self.session = session
        self.status: Status = "queued"
        self._started = time.monotonic()
        self._execute = execute
        self._grace = grace
        self._objectives = objectives(program.calls, program.parrot.objectives)
        self._open = {call.id: call for call in program.calls}
        self._finished: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: list[Event] = []
        self._changed = asyncio.Event()
        self._readers = 0
        self._on_done: list[Callable[[Run], None]] = []
        self._emit(events.RunStarted(id=self.id))

    # What the session tells it.

    def launch(self, node: Node[Run]) -> None:
        """`node` has all its inputs: announce the request it is now, then execute it."""
        body = render(node.call.request, self.session.graph.values(node.inputs))
        ready = Ready(node, body, content_key(body), time.monotonic() - self._started)
        self.status = "running"
        self._emit(events.CallReady(id=node.call.id, content_key=ready.key))
        task = asyncio.create_task(self._drive(ready))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def abort(self, aborted: Aborted[Run]) -> None:
        """A call of this run will never be ready."""
        call = aborted.node.call
        if self._open.pop(call.id, None) is not None:
            self._emit(events.CallAborted(id=call.id, reason=aborted.error.message))
            self._maybe_finish()

    # Executing a call.

    async def _drive(self, ready: Ready) -> None:
        call = ready.node.call
        streams = self.program.streams(call.id)
        try:
            async with aclosing(self._execute(ready.body, self._objectives[call.id])) as items:
                async for item in items:
                    if isinstance(item, Done):
                        self._succeed(ready, item)
                    elif streams:
                        self._emit(events.VariableDelta(id=call.id, variable=call.output, text=item.text))
        except ParrotError as error:
            self._fail(ready, error)
        except Exception:
            log.exception("call %r of %s", call.id, self.id)
            self._fail(ready, InternalError(f"call {call.id!r} failed inside the server; its log says why"))

    def _succeed(self, ready: Ready, done: Done) -> None:
        call = ready.node.call
        response = completion(ready.body, done, id=f"chatcmpl-{uuid.uuid4().hex}", created=int(time.time()))
        timings = done.timings.model_copy(update={"ready": ready.at})
        # Consumers first: whoever sees this call finished knows already what follows from it.
        self.session.resolve(call.output, done.text)
        self._settle(ready, events.CallFinished(id=call.id, content_key=ready.key, response=response, timings=timings))

    def _fail(self, ready: Ready, error: ParrotError) -> None:
        call = ready.node.call
        self.session.fail(call.output, error)
        body = error.body()
        self._settle(ready, events.CallFailed(id=call.id, content_key=ready.key, status=error.status, body=body))

    def _settle(self, ready: Ready, event: events.CallFinished | events.CallFailed) -> None:
        del self._open[ready.node.call.id]
        record = event.model_dump(mode="json", exclude={"type", "id"})
        self._finished[event.id] = record
        self._emit(event)
        self._maybe_finish()

    # The end.

    def cancel(self, reason: str = "the run was cancelled") -> None:
        """Stop what runs, abort what waits. Nothing happens to a run that has ended."""
        if self.ended:
            return
        for task in self._tasks:
            task.cancel()
        gone, self._open = self._open, {}
        for call in gone.values():
            if not self.session.graph.variables[call.output].settled:
                self.session.fail(call.output, Cancelled(reason, where=call.output))
            self._emit(events.CallAborted(id=call.id, reason=reason))
        self._finish("cancelled")

    def _maybe_finish(self) -> None:
        if not self._open and not self.ended:
            self._finish("finished" if set(self.program.wanted()) <= set(self.outputs()) else "failed")

    def _finish(self, status: Status) -> None:
        self.status = status
        end = events.RunFinished(id=self.id, status=status, outputs=self.outputs(), errors=self.errors())
        self._emit(end)
        for told in self._on_done:
            told(self)

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

    def outputs(self) -> dict[str, str]:
        """The wanted outputs that have a value."""
        return self.session.graph.values(self.program.wanted())

    def errors(self) -> dict[str, dict[str, Any]]:
        """Error body, with the call's name, by variable: of every call that failed or was aborted."""
        found: dict[str, dict[str, Any]] = {}
        for call in self.program.calls:
            error = self.session.graph.variables[call.output].error
            if error is not None:
                found[call.output] = {**error.body()["error"], "call": call.id}
        return found

    def tokens(self, call_ids: Collection[str]) -> int:
        """Tokens generated by those of `call_ids` that finished."""
        done = (self._finished[name] for name in call_ids if name in self._finished)
        return sum(call["response"]["usage"]["completion_tokens"] for call in done if "response" in call)

    def result(self) -> dict[str, Any]:
        """The JSON body of GET and POST /v1/runs."""
        return {
            "id": self.id,
            "status": self.status,
            "outputs": self.outputs(),
            "errors": self.errors(),
            "calls": self._finished,
        }

    async def events(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """(number, event), numbered from 1: those past `after`, then each as it happens, to `run.finished`."""
        while True:
            while after < len(self._log):
                after += 1
                yield after, self._log[after - 1]
            if self.ended:
                return
            await self._changed.wait()

    async def wait(self) -> None:
        """Until the run has ended."""
        while not self.ended:
            await self._changed.wait()

    def attach(self) -> None:
        """A client reads along."""
        self._readers += 1

    def detach(self) -> None:
        """A client has gone: a prefetch run ends with its last reader, a foreground run after the grace."""
        self._readers -= 1
        if self._readers or self.ended:
            return
        if self.program.parrot.lifetime == "prefetch":
            self._abandon()
        else:
            asyncio.get_running_loop().call_later(self._grace, self._abandon)

    def _abandon(self) -> None:
        if not self._readers:
            self.cancel("the client has gone")

    def _emit(self, event: Event) -> None:
        self._log.append(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
