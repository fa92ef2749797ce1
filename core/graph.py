"""The running graph: variables, who produces and who consumes them, and which calls are ready. No I/O, no clock.

A graph grows: each program joins it whole or not at all. A call may read only variables that exist when it joins,
so a cycle can only lie within one program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from semantic_parrot.core.errors import (
    CyclicProgram,
    DanglingReference,
    DependencyFailed,
    DuplicateProducer,
    InvalidRequest,
    NotFound,
    ParrotError,
)
from semantic_parrot.core.program import Call

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Node(Generic[Owner]):
    """A call in the graph. `missing` counts its inputs without a value; `owner` is told when that changes."""

    call: Call
    inputs: tuple[str, ...]
    owner: Owner
    missing: int = 0


@dataclass(slots=True)
class Variable(Generic[Owner]):
    """Single assignment: `value` or `error` is set once. `producer` is None for an input."""

    name: str
    producer: Node[Owner] | None
    consumers: list[Node[Owner]] = field(default_factory=list)
    value: str | None = None
    error: ParrotError | None = None

    @property
    def settled(self) -> bool:
        return self.value is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class Aborted(Generic[Owner]):
    """A call that will never run, and why."""

    node: Node[Owner]
    error: ParrotError


@dataclass(frozen=True, slots=True)
class Joined(Generic[Owner]):
    """What a program's joining made runnable at once, and what it could not."""

    ready: list[Node[Owner]]
    aborted: list[Aborted[Owner]]


class Graph(Generic[Owner]):
    """Owned by the event loop; no method blocks. Methods raise before they change anything."""

    def __init__(self) -> None:
        self.variables: dict[str, Variable[Owner]] = {}

    def join(self, calls: Sequence[Call], inputs: Mapping[str, str | None], owner: Owner) -> Joined[Owner]:
        """Add `calls` and `inputs` (None: set later).

        Raises DuplicateProducer, DanglingReference or CyclicProgram with the names involved; then nothing joined.
        """
        nodes = [Node(call, call.inputs(), owner) for call in calls]
        self._check(nodes, inputs)
        for name, value in inputs.items():
            self.variables[name] = Variable(name, None, value=value)
        for node in nodes:
            self.variables[node.call.output] = Variable(node.call.output, node)
        joined: Joined[Owner] = Joined([], [])
        failed: list[tuple[Node[Owner], Variable[Owner]]] = []
        for node in nodes:
            for name in node.inputs:
                variable = self.variables[name]
                if variable.error is not None:
                    failed.append((node, variable))
                if variable.value is None:
                    node.missing += 1
                    variable.consumers.append(node)
            if node.missing == 0:
                joined.ready.append(node)
        for node, variable in failed:
            joined.aborted.extend(self._abort(node, variable))
        return joined

    def resolve(self, name: str, value: str) -> list[Node[Owner]]:
        """Give `name` its value; the calls that are ready now. Raises NotFound, or InvalidRequest if it has one."""
        variable = self._open(name)
        variable.value = value
        for node in variable.consumers:
            node.missing -= 1
        return [node for node in variable.consumers if node.missing == 0]

    def fail(self, name: str, error: ParrotError) -> list[Aborted[Owner]]:
        """`name` will never have a value: every call downstream of it is aborted, each once, in graph order."""
        variable = self._open(name)
        variable.error = error
        return [gone for node in variable.consumers for gone in self._abort(node, variable)]

    def variable(self, name: str) -> Variable[Owner]:
        """Raises NotFound."""
        try:
            return self.variables[name]
        except KeyError:
            raise NotFound(f"no variable {name!r} in this session", where=name) from None

    def settable(self, name: str) -> None:
        """Raises NotFound, or InvalidRequest if a call produces `name` or it has a value."""
        producer = self._open(name).producer
        if producer is not None:
            raise InvalidRequest(f"variable {name!r} is the output of call {producer.call.id!r}", where=name)

    def values(self, names: Sequence[str]) -> dict[str, str]:
        """The values of `names`, which must have one."""
        found = {name: self.variables[name].value for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def _open(self, name: str) -> Variable[Owner]:
        variable = self.variable(name)
        if variable.settled:
            raise InvalidRequest(f"variable {name!r} is assigned once, and it has been", where=name)
        return variable

    def _abort(self, node: Node[Owner], cause: Variable[Owner]) -> Iterator[Aborted[Owner]]:
        """`node` and everything downstream of it. Iterative: a chain may be longer than Python's stack."""
        todo = [(node, cause)]
        while todo:
            node, cause = todo.pop()
            output = self.variables[node.call.output]
            if output.settled:
                continue
            assert cause.error is not None
            reason = f"call {node.call.id!r} did not run: its input {cause.name!r} failed: {cause.error.message}"
            output.error = DependencyFailed(reason, where=node.call.output)
            yield Aborted(node, output.error)
            todo.extend((consumer, output) for consumer in reversed(output.consumers))

    def _check(self, nodes: Sequence[Node[Owner]], inputs: Mapping[str, str | None]) -> None:
        for name in inputs:
            if name in self.variables:
                raise DuplicateProducer(f"input {name!r} exists in this session", where=f"inputs.{name}")
        producers: dict[str, Node[Owner]] = {}
        for node in nodes:
            name, mine = node.call.output, node.call.id
            if name in producers:
                message = f"variable {name!r} has two producers: calls {producers[name].call.id!r} and {mine!r}"
                raise DuplicateProducer(message, where=name)
            if name in inputs or name in self.variables:
                raise DuplicateProducer(f"call {mine!r} produces {name!r}, which exists already", where=name)
            producers[name] = node
        for node in nodes:
            for name in node.inputs:
                if name not in producers and name not in inputs and name not in self.variables:
                    message = f"call {node.call.id!r} reads the unknown variable {name!r}"
                    raise DanglingReference(message, where=f"call {node.call.id!r}.request")
        _refuse_cycles(nodes, producers)


def _refuse_cycles(nodes: Sequence[Node[Owner]], producers: Mapping[str, Node[Owner]]) -> None:
    """Kahn's algorithm; what is left over lies on a cycle or behind one, so a walk upstream finds it."""
    waits = {node.call.output: sum(name in producers for name in node.inputs) for node in nodes}
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.call.output)
    free = [name for name, count in waits.items() if count == 0]
    while free:
        name = free.pop()
        del waits[name]
        for reader in readers.get(name, ()):
            waits[reader] -= 1
            if waits[reader] == 0:
                free.append(reader)
    if not waits:
        return
    name, path = next(iter(waits)), list[str]()
    while name not in path:
        path.append(name)
        name = next(source for source in producers[name].inputs if source in waits)
    cycle = [name, *reversed(path[path.index(name) :])]
    calls = ", ".join(repr(producers[name].call.id) for name in cycle[1:])
    raise CyclicProgram(f"the program has a cycle: {' -> '.join(cycle)} (calls {calls})", where=cycle[0])
