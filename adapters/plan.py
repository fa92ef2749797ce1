"""A plan: the calls that an app is going to make, as far as they can be known without running it."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Marks, Part, Ref
from semantic_parrot.core.body import MAX_BOUND
from semantic_parrot.core.program import Options, Program
from semantic_parrot.core.wire import TEMPLATE

#: A program of fewer calls saves no round trip.
WORTH_SENDING = 2

Site = Hashable
"""Names the place in the app that makes a call, to learn how often its planned answers are used."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCall:
    """`request` is an OpenAI body with templates; `variable` names its text. `repeated`: it is executed once for each
    member of a list. `inputs`: the variables that it reads."""

    variable: str
    request: dict[str, Any]
    endpoint: Endpoint
    site: Site
    repeated: bool = False
    inputs: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Nodes:
    """Calls, transforms and maps of one server, in the form of the wire; those of the maps are in these."""

    endpoint: Endpoint
    calls: list[PlannedCall] = field(default_factory=list)
    transforms: list[dict[str, Any]] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        # A variable has one producer, so its name serves as the node's id as well.
        calls = [{"id": call.variable, "output": call.variable, "request": call.request} for call in self.calls]
        return {"calls": calls, "transforms": self.transforms, "maps": self.maps}


NO_MARKS = Marks("")


@dataclass(slots=True)
class Plan:
    """Calls found so far, those of maps included; how often each composite runnable (by id) is contained whole; the
    marks of its templates. `repeating`: the server whose map's body is being planned. `hints`: what the app
    states of its last call: `objective`, `deadline_ms`, `priority`."""

    calls: list[PlannedCall] = field(default_factory=list)
    covered: Counter[int] = field(default_factory=Counter)
    marks: Marks = field(default_factory=lambda: Marks(secrets.token_hex(16)))
    repeating: Endpoint | None = None
    hints: dict[str, Any] = field(default_factory=dict)
    _open: dict[Endpoint, Nodes] = field(default_factory=dict)
    _homes: dict[str, Nodes] = field(default_factory=dict)
    _names: dict[Ref, str] = field(default_factory=dict)

    @classmethod
    def of(cls, calls: list[PlannedCall], nodes: dict[Endpoint, Nodes], covered: Counter[int]) -> Plan:
        """One to which nothing is added any more."""
        return cls(calls, Counter(covered), NO_MARKS, _open=nodes)

    def add(self, request: dict[str, Any], endpoint: Endpoint, site: Site) -> str:
        """A further call; returns the variable of its text."""
        nodes = self._nodes(endpoint)
        name = f"text{len(self.calls)}"
        call = PlannedCall(name, request, endpoint, site, self.repeating is not None, tuple(_reads(request)))
        self.calls.append(call)
        nodes.calls.append(call)
        self._homes[call.variable] = nodes
        return call.variable

    def _nodes(self, endpoint: Endpoint) -> Nodes:
        return self._open.setdefault(endpoint, Nodes(endpoint))

    def server_of(self, variable: str) -> Endpoint:
        """Which server knows `variable`."""
        return self._homes[variable].endpoint

    def name(self, ref: Ref) -> str:
        """The variable that holds the value of `ref`; adds the transforms that make it."""
        if not ref.operations:
            return ref.variable
        name = self._names.get(ref)
        if name is None:
            of = self.name(Ref(ref.variable, ref.operations[:-1]))
            name = self._names[ref] = f"value{len(self._names)}"
            # Beside what it is made of, not where it is read: so it is made once.
            home = self._homes[name] = self._homes[of]
            made = {key: list(value) if isinstance(value, tuple) else value for key, value in ref.operations[-1]}
            home.transforms.append({"id": name, "of": of, "output": name, **made})
        return name

    def text(self, parts: Sequence[Part], endpoint: Endpoint) -> str:
        """The variable that holds the text of `parts`."""
        if len(parts) == 1 and isinstance(parts[0], Ref):
            return self.name(parts[0])
        template = {TEMPLATE: [{"var": self.name(p)} if isinstance(p, Ref) else p for p in parts]}
        name = f"value{len(self._names)}"
        self._names[Ref(name)] = name
        nodes = self._homes[name] = self._nodes(endpoint)
        nodes.transforms.append({"id": name, "op": "template", "template": template, "output": name})
        return name

    @contextmanager
    def each(self, over: Ref) -> Iterator[Repeated]:
        """What is added inside is done for each member of the list `over`, once `result` of the map is set."""
        source = self.name(over)
        home = self._homes[source]
        number = len(self._homes)
        repeated = Repeated(f"item{number}", f"list{number}")
        outer, self._open = self._open, {home.endpoint: Nodes(home.endpoint)}
        repeating, self.repeating = self.repeating, home.endpoint
        nodes = self._homes[repeated.item] = self._open[home.endpoint]
        try:
            yield repeated
        finally:
            self._open, self.repeating = outer, repeating
        self._homes[repeated.output] = home
        if not nodes.calls and repeated.result in (None, repeated.item):
            return  # nothing is done
        named = {"id": repeated.output, "over": source, "item": repeated.item, "output": repeated.output}
        home.maps.append({**named, "bound": MAX_BOUND, "result": repeated.result or repeated.item, **nodes.body()})

    def nodes(self) -> tuple[Nodes, ...]:
        """What each server is to do, whether it is worth a program or not."""
        return tuple(self._open.values())

    def submissions(self) -> list[tuple[Nodes, list[PlannedCall]]]:
        """What each server is to do, with the calls in it, without what is not worth a program."""
        found = [(nodes, [c for c in self.calls if c.endpoint == nodes.endpoint]) for nodes in self._open.values()]
        return [(nodes, calls) for nodes, calls in found if len(calls) >= WORTH_SENDING]


def _reads(node: Any) -> dict[str, None]:
    """The variables that a request reads, each once, in the order of their first use; holes may be in it."""
    found: dict[str, None] = {}
    if isinstance(node, dict):
        parts = node.get(TEMPLATE)
        if parts is not None:
            return {part["var"]: None for part in parts if isinstance(part, dict)}
        node = node.values()
    elif not isinstance(node, list):
        return found
    for value in node:
        if isinstance(value, dict | list):
            found |= _reads(value)
    return found


@dataclass(slots=True)
class Repeated:
    """A map that is being planned. `item` is the variable that its body sees, `result` the one that it makes."""

    item: str
    output: str
    result: str | None = None


def program_of(
    nodes: Nodes, hints: Mapping[str, Any], *, streaming: bool, max_concurrency: int | None = None
) -> Program:
    """What is sent. `streaming`: the app reads its last calls' text as it comes. `hints`: of what none reads.
    `max_concurrency`: so many calls at a time."""
    stated = dict(hints)
    objective = stated.pop("objective", None)
    program = Program(
        **nodes.body(),
        outputs=[],
        parrot=Options(lifetime="prefetch", max_concurrency=max_concurrency, **stated),
        deltas=_last(nodes) if streaming else "none",
        stream=True,
    )
    if objective is None:
        return program
    objectives = dict.fromkeys(program.sinks(), objective)
    return program.model_copy(update={"parrot": program.parrot.model_copy(update={"objectives": objectives})})


def _last(nodes: Nodes) -> list[str]:
    """The calls that no prompt reads; and those that a transform does, as parsers may give another value for a text
    that comes in pieces than for all of it at once."""
    read = {name for call in nodes.calls for name in call.inputs}
    parsed = {transform.get("of") for transform in nodes.transforms}
    return [call.variable for call in nodes.calls if call.variable not in read or call.variable in parsed]
