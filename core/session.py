"""A client's scope: one graph that its programs join, and the runs that execute them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping

from semantic_parrot.core.errors import Cancelled, NotFound, ParrotError
from semantic_parrot.core.graph import Graph
from semantic_parrot.core.program import Call, Options, Program
from semantic_parrot.core.run import Run


class Session:
    """Owned by the event loop. `start` makes and registers a run for a program of this session."""

    def __init__(self, start: Callable[[Program, Session], Run]) -> None:
        self.id = f"ses_{uuid.uuid4().hex}"
        self.graph: Graph[Run] = Graph()
        self.runs: set[Run] = set()
        self._start = start
        self._waiters: dict[str, list[asyncio.Future[str]]] = {}

    @property
    def busy(self) -> bool:
        """Whether a run is under way or a client waits for a variable."""
        return bool(self.runs or self._waiters)

    # Programs.

    def join(self, program: Program, run: Run) -> None:
        """`program` joins the graph and its ready calls start. Raises as Graph.join; then nothing runs."""
        joined = self.graph.join(program.calls, program.inputs, run)
        self.runs.add(run)
        run.on_done(self.runs.discard)
        for node in joined.ready:
            run.launch(node)
        for gone in joined.aborted:
            run.abort(gone)

    def resolve(self, name: str, value: str) -> None:
        """`name` has its value: tell who waits, launch what is ready."""
        ready = self.graph.resolve(name, value)
        for waiter in self._waiters.pop(name, ()):
            if not waiter.done():
                waiter.set_result(value)
        for node in ready:
            node.owner.launch(node)

    def fail(self, name: str, error: ParrotError) -> None:
        """`name` will never have a value, and nothing downstream of it either."""
        aborted = self.graph.fail(name, error)
        self._raise(name, error)
        for gone in aborted:
            self._raise(gone.node.call.output, gone.error)
            gone.node.owner.abort(gone)

    # The paper's step-wise API (§4.1): submit, set, get.

    def submit(self, calls: list[Call], inputs: Mapping[str, str | None]) -> list[str]:
        """Submit calls and return at once: the ids of their output variables. Raises as `join`."""
        self._start(Program(calls=calls, inputs=dict(inputs), parrot=Options(session=self.id)), self)
        return [self.variable_id(call.output) for call in calls]

    def variable_id(self, name: str) -> str:
        return f"{self.id}.{name}"

    def set(self, name: str, value: str) -> None:
        """Raises NotFound for an unknown variable, InvalidRequest for one that has a value or a producer."""
        self.graph.settable(name)
        self.resolve(name, value)

    async def get(self, name: str) -> str:
        """The value, as soon as there is one. Raises NotFound, or the error of the call that should produce it."""
        variable = self.graph.variable(name)
        if variable.error is not None:
            raise variable.error
        if variable.value is not None:
            return variable.value
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = self._waiters.setdefault(name, [])
        waiting.append(waiter)
        try:
            return await waiter
        finally:
            waiting.remove(waiter)
            if not waiting and self._waiters.get(name) is waiting:
                del self._waiters[name]

    def close(self, reason: str = "the session was closed") -> None:
        """Cancel its runs; whoever waits for a variable gets Cancelled."""
        for run in tuple(self.runs):
            run.cancel(reason)
        for name in tuple(self._waiters):
            self._raise(name, Cancelled(reason, where=name))

    def _raise(self, name: str, error: ParrotError) -> None:
        for waiter in self._waiters.pop(name, ()):
            if not waiter.done():
                waiter.set_exception(error)


def split_variable_id(variable_id: str) -> tuple[str, str]:
    """(session id, variable name). Raises NotFound for what is no variable id."""
    session_id, dot, name = variable_id.partition(".")
    if not dot:
        raise NotFound(f"no variable {variable_id!r}; its id is <session id>.<name>", where=variable_id)
    return session_id, name
