"""A client's scope: one graph that its programs join, and the runs that execute them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from semantic_parrot.core.ahead import Ahead
from semantic_parrot.core.analysis import Analysis, Class, NextUses, Planned, PrefixUses
from semantic_parrot.core.eager import Bound, Criteria
from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import Cancelled, DeadlineExceeded, NotFound, ParrotError
from semantic_parrot.core.fills import Fills
from semantic_parrot.core.graph import Effects, Graph, Variable
from semantic_parrot.core.instance import Node
from semantic_parrot.core.program import Body, Options, Program
from semantic_parrot.core.run import Run
from semantic_parrot.core.shape import Prompt, Shape
from semantic_parrot.core.sharing import Sharing
from semantic_parrot.core.value import JSON, as_text

#: Seconds that a call of a shape is expected to take on an idle engine.
Plan = Callable[[Shape], float]


class Session:
    """Owned by the event loop. `start` makes and registers a run for a program of this session; `plan` says what to
    expect of a call; `fills`: prompts that engines fill ahead (None: they fill none); `sharing` and `uses` are those of
    its `tenant` (`uses` None: no engine is told what to keep)."""

    def __init__(
        self,
        start: Callable[[Program, Session], Run],
        plan: Plan,
        fills: Fills | None,
        sharing: Sharing,
        uses: NextUses | None = None,
        tenant: str = "",
    ) -> None:
        self.id = f"ses_{uuid.uuid4().hex}"
        self.tenant = tenant
        self.graph: Graph[Run] = Graph()
        self.analysis = Analysis()
        self.ahead = Ahead(self.graph, self.analysis, self.id, fills, uses, tenant)
        self.runs: set[Run] = set()
        self.prefixes = PrefixUses()
        self.sharing = sharing
        self.uses = uses
        self._start = start
        self._plan = plan
        self._held: set[Bound] = set()
        self._waiters: dict[str, list[asyncio.Future[JSON]]] = {}

    @property
    def busy(self) -> bool:
        """Whether a run or a call on its own is under way, or a client waits for a variable."""
        return bool(self.runs or self._held or self._waiters)

    # Programs.

    def join(self, program: Program, run: Run) -> None:
        """`program` joins the graph and its ready calls start. Raises as Graph.join; then nothing runs."""
        effects = self.graph.join(program.nodes(), program.inputs, run)
        self.runs.add(run)
        run.on_done(self.runs.discard)
        options, now = program.parrot, time.monotonic()
        due = (
            {}
            if options.deadline_ms is None
            else dict.fromkeys(program.wanted() or program.sinks(), now + options.deadline_ms / 1e3)
        )
        self._tell(effects, {**options.objectives}, due)
        for name, value in program.inputs.items():
            if value is None:
                self.ahead.started(name)

    def resolve(self, name: str, value: JSON) -> None:
        """`name` has its value: tell who waits, launch what is ready."""
        self._tell(self.graph.resolve(name, value))

    def fail(self, name: str, error: ParrotError) -> None:
        """`name` will never have a value, and nothing downstream of it either."""
        self._tell(self.graph.fail(name, error))

    def _tell(
        self, effects: Effects[Run], stated: Mapping[str, Class] | None = None, due: Mapping[str, float] | None = None
    ) -> None:
        """All that a change has led to, to whom it concerns. Whether a run has ended shows only after the rest."""
        for node in effects.added:
            node.owner.adopt(node)
        for gone in effects.aborted:
            gone.node.owner.abort(gone)
        for variable in effects.settled:
            self.analysis.finish(variable.name)
            self.prefixes.leave(variable.name)
            if self.uses is not None:
                self.uses.leave((self.id, variable.name))
        if effects.added or stated or due:
            self._analyse(effects.added, stated or {}, due or {})
        for node in effects.ready:
            node.owner.launch(node)
            self.ahead.over(node.output)
            self.ahead.started(node.output)
        concerned = dict.fromkeys(node.owner for node in effects.added)
        for variable in effects.settled:
            self.ahead.settled(variable)
            self._answer(variable)
            if variable.producer is not None:
                variable.producer.owner.settled(variable.producer)
                concerned[variable.producer.owner] = None
        for run in concerned:
            run.maybe_finish()

    def _analyse(self, nodes: Sequence[Node[Run]], stated: Mapping[str, Class], due: Mapping[str, float]) -> None:
        planned = []
        for node in nodes:
            variable = self.graph.variables[node.output]
            if variable.settled or variable.producer is not node:
                continue  # done already, or a map or branch that its body stands in for already
            if isinstance(node.spec, Prompt):
                shape = node.spec.shape
                planned.append(Planned(node.output, node.reads, self._plan(shape), shape.skeleton))
                self.prefixes.join(node.output, shape.skeleton, partial(self.text_of, node))
            else:
                planned.append(Planned(node.output, node.reads, 0.0, None))
        self.analysis.join(planned, stated, now=time.monotonic(), due=due)
        if self.uses is not None:
            for call in planned:
                if call.skeleton is not None:
                    latest = self.analysis.step(call.output).latest
                    self.uses.join((self.id, call.output), self.prefixes.prefixes(call.output), latest)

    def text_of(self, node: Node[Run], name: str) -> str:
        """The text of parameter `name` of call `node`, if it is there; else the variable's own name, marked as one."""
        variable = self.graph.variables[node.reads[int(name)]]
        known = variable.settled and variable.error is None
        return as_text(variable.value) if known else f"\1{variable.name}"

    def _answer(self, variable: Variable[Run]) -> None:
        for waiter in self._waiters.pop(variable.name, ()):
            if waiter.done():
                continue
            if variable.error is not None:
                waiter.set_exception(variable.error)
            else:
                waiter.set_result(variable.value)

    # The paper's step-wise API (§4.1): submit, set, get.

    def submit(self, body: Body, inputs: Mapping[str, JSON]) -> list[str]:
        """Submit nodes and return at once: the ids of their output variables. Raises as `join`."""
        fields = {field: getattr(body, field) for field in Body.model_fields}
        self._start(Program(**fields, inputs=dict(inputs), parrot=Options(session=self.id)), self)
        return [self.variable_id(node.output) for node in body.nodes()]

    def variable_id(self, name: str) -> str:
        return f"{self.id}.{name}"

    def set(self, name: str, value: JSON) -> None:
        """Raises NotFound for an unknown variable, InvalidRequest for one that has a value or a producer."""
        self.graph.settable(name)
        self.resolve(name, value)

    async def get(self, name: str, criteria: Criteria | None = None) -> JSON:
        """The value, as soon as there is one. Raises NotFound, the error of the call that should produce it, or
        DeadlineExceeded: then the wait ends, and the call goes on."""
        variable = self.graph.variable(name)
        if variable.error is not None:
            raise variable.error
        if variable.settled:
            return variable.value
        criteria = criteria or Criteria()
        self._ask(name, criteria)
        waiter: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        waiting = self._waiters.setdefault(name, [])
        waiting.append(waiter)
        try:
            async with asyncio.timeout(None if criteria.deadline_ms is None else criteria.deadline_ms / 1e3):
                return await waiter
        except TimeoutError:
            late = f"{name!r} was not there within the deadline of {criteria.deadline_ms:g} ms"
            raise DeadlineExceeded(late, where=name) from None
        finally:
            waiting.remove(waiter)
            if not waiting and self._waiters.get(name) is waiting:
                del self._waiters[name]

    def _ask(self, name: str, criteria: Criteria) -> None:
        """Deduce again what is open, now that it is known how variable `name` is waited for."""
        now = time.monotonic()
        stated: dict[str, Class] = {} if criteria.objective is None else {name: criteria.objective}
        due = {} if criteria.deadline_ms is None else {name: now + criteria.deadline_ms / 1e3}
        if stated or due:
            self.analysis.join((), stated, now=now, due=due)
        if criteria.objective == "latency":
            for step in self.analysis.upstream(name):
                node = self.graph.variables[step.planned.output].producer
                if node is not None:
                    node.owner.hurry(node, step)

    async def hold(self, bound: Bound, items: AsyncGenerator[Delta | Done, None]) -> AsyncGenerator[Delta | Done, None]:
        """`items`, the answer of a call on its own, for as long as the session is open and `bound` allows."""
        self._held.add(bound)
        try:
            async with aclosing(bound.over(items)) as bounded:
                async for item in bounded:
                    yield item
        finally:
            self._held.discard(bound)

    def close(self, reason: str = "the session was closed") -> None:
        """Cancel its runs and calls; whoever waits for a variable gets Cancelled."""
        for run in tuple(self.runs):
            run.cancel(reason)
        for bound in tuple(self._held):
            bound.stop(Cancelled(reason, where=self.id))
        for name in tuple(self._waiters):
            for waiter in self._waiters.pop(name):
                if not waiter.done():
                    waiter.set_exception(Cancelled(reason, where=name))


def split_variable_id(variable_id: str) -> tuple[str, str]:
    """(session id, variable name). Raises NotFound for what is no variable id."""
    session_id, dot, name = variable_id.partition(".")
    if not dot:
        raise NotFound(f"no variable {variable_id!r}; its id is <session id>.<name>", where=variable_id)
    return session_id, name
