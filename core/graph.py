"""The running graph: variables, who produces and who consumes them, and what is ready. No I/O, no clock.

A graph grows: each program joins it whole or not at all. A node may read only variables that exist when it joins,
so a cycle can only lie within one program. Transforms, maps and branches are done here, as soon as their inputs
have values; calls are handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from semantic_parrot.core.body import Branch, Map, Spec
from semantic_parrot.core.check import check
from semantic_parrot.core.errors import DependencyFailed, InvalidRequest, NotFound, ParrotError, TransformFailed
from semantic_parrot.core.instance import Collect, Node, Owner, Scope, Work, expand, place
from semantic_parrot.core.shape import Prompt
from semantic_parrot.core.transforms import apply
from semantic_parrot.core.value import JSON, refuse_large


@dataclass(slots=True)
class Variable(Generic[Owner]):
    """Single assignment: it is `settled` once, by a `value` (text or JSON) or an `error`. `producer` is None for an
    input."""

    name: str
    producer: Node[Owner] | None
    consumers: list[Node[Owner]] = field(default_factory=list)
    value: JSON = None
    error: ParrotError | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Aborted(Generic[Owner]):
    """A node that will never run, and why."""

    node: Node[Owner]
    error: ParrotError


@dataclass(frozen=True, slots=True)
class Effects(Generic[Owner]):
    """What one change has led to: nodes that are new, calls that are ready, nodes that never will be, each once; and
    the variables that are settled now, in that order."""

    added: list[Node[Owner]] = field(default_factory=list)
    ready: list[Node[Owner]] = field(default_factory=list)
    aborted: list[Aborted[Owner]] = field(default_factory=list)
    settled: list[Variable[Owner]] = field(default_factory=list)


class Graph(Generic[Owner]):
    """Owned by the event loop; no method blocks. Methods raise before they change anything."""

    def __init__(self) -> None:
        self.variables: dict[str, Variable[Owner]] = {}

    def join(self, specs: Sequence[Spec], inputs: Mapping[str, JSON], owner: Owner) -> Effects[Owner]:
        """Add `specs` and `inputs` (None: set later).

        Raises DuplicateProducer, DanglingReference or CyclicProgram with the names involved; then nothing joined.
        """
        check(specs, inputs, self.variables)
        for name, value in inputs.items():
            self.variables[name] = Variable(name, None, value=value, settled=value is not None)
        scope = Scope()
        effects: Effects[Owner] = Effects()
        self._add([place(spec, scope, owner) for spec in specs], effects)
        return self._spread(effects)

    def resolve(self, name: str, value: JSON) -> Effects[Owner]:
        """Give `name` its value. Raises NotFound, or InvalidRequest if it has one."""
        effects: Effects[Owner] = Effects()
        self._assign(self._open(name), value, effects)
        return self._spread(effects)

    def fail(self, name: str, error: ParrotError) -> Effects[Owner]:
        """`name` will never have a value: every node downstream of it is aborted."""
        effects: Effects[Owner] = Effects()
        self._reject(self._open(name), error, effects)
        return self._spread(effects)

    def variable(self, name: str) -> Variable[Owner]:
        """Raises NotFound."""
        try:
            return self.variables[name]
        except KeyError:
            raise NotFound(f"no variable {name!r} in this session", where=name) from None

    def settable(self, name: str) -> None:
        """Raises NotFound, or InvalidRequest if a node produces `name` or it has a value."""
        producer = self._open(name).producer
        if producer is not None:
            raise InvalidRequest(f"variable {name!r} is the output of {producer}", where=name)

    def values(self, names: Iterable[str]) -> dict[str, JSON]:
        """The values of those of `names` that have one."""
        found = ((name, self.variables[name]) for name in names)
        return {name: variable.value for name, variable in found if variable.settled and variable.error is None}

    def inputs(self, node: Node[Owner]) -> dict[str, JSON]:
        """The values that `node` reads, which it must have, by the names that its specification has for them."""
        read = zip(node.spec.awaits(), node.reads, strict=True)
        return {name: self.variables[variable].value for name, variable in read}

    def _open(self, name: str) -> Variable[Owner]:
        variable = self.variable(name)
        if variable.settled:
            raise InvalidRequest(f"variable {name!r} is assigned once, and it has been", where=name)
        return variable

    # The work: `effects.settled` is also the queue of variables whose consumers are still to be told.

    def _spread(self, effects: Effects[Owner]) -> Effects[Owner]:
        """Iterative: a chain may be longer than Python's stack."""
        for variable in effects.settled:  # grows meanwhile
            for node in variable.consumers:
                if self.variables[node.output].settled:
                    continue
                if variable.error is not None:
                    self._abort(node, variable, effects)
                    continue
                node.missing -= 1
                if node.missing == 0:
                    self._fire(node, effects)
        return effects

    def _add(self, nodes: Sequence[Node[Owner]], effects: Effects[Owner]) -> None:
        for node in nodes:
            variable = self.variables.get(node.output)
            if variable is None:
                self.variables[node.output] = Variable(node.output, node)
            else:  # the output of a map or branch, which from now on the collecting node makes
                variable.producer = node
        causes: list[Variable[Owner] | None] = []
        for node in nodes:
            inputs = [self.variables[name] for name in node.reads]
            for variable in inputs:
                if not variable.settled:
                    node.missing += 1
                    variable.consumers.append(node)
            causes.append(next((variable for variable in inputs if variable.error is not None), None))
        effects.added.extend(nodes)
        for node, cause in zip(nodes, causes, strict=True):
            if cause is not None:
                self._abort(node, cause, effects)
            elif node.missing == 0:
                self._fire(node, effects)

    def _fire(self, node: Node[Owner], effects: Effects[Owner]) -> None:
        """`node` has all its inputs."""
        if isinstance(node.spec, Prompt):
            effects.ready.append(node)
            return
        output = self.variables[node.output]
        try:
            if isinstance(node.spec, Map | Branch):
                (value,) = self.inputs(node).values()
                growth = expand(node, value)
                for name, item in growth.items.items():
                    self.variables[name] = Variable(name, None, value=item, settled=True)
                self._add(growth.nodes, effects)
            else:
                self._assign(output, self._evaluate(node, node.spec), effects)
        except TransformFailed as error:
            self._reject(output, type(error)(f"{node}: {error.message}", where=node.output), effects)

    def _evaluate(self, node: Node[Owner], spec: Work) -> JSON:
        values = self.inputs(node)
        if not isinstance(spec, Collect):
            assert not isinstance(spec, Prompt | Map | Branch)
            return apply(spec, values)
        if not spec.many:
            return values[spec.results[0]]
        gathered = [values[name] for name in spec.results]
        refuse_large(gathered)
        return gathered

    def _abort(self, node: Node[Owner], cause: Variable[Owner], effects: Effects[Owner]) -> None:
        output = self.variables[node.output]
        if output.settled:
            return
        assert cause.error is not None
        because = cause.error.because if isinstance(cause.error, DependencyFailed) else cause.error.message
        reason = f"{node} did not run: its input {cause.name!r} failed: {because}"
        error = DependencyFailed(reason, where=node.output, because=because)
        effects.aborted.append(Aborted(node, error))
        self._reject(output, error, effects)

    def _assign(self, variable: Variable[Owner], value: JSON, effects: Effects[Owner]) -> None:
        variable.value, variable.settled = value, True
        effects.settled.append(variable)

    def _reject(self, variable: Variable[Owner], error: ParrotError, effects: Effects[Owner]) -> None:
        variable.error, variable.settled = error, True
        effects.settled.append(variable)
