"""A node of the running graph, and how maps and branches become more of them.

The instance of a body sees its own names as ``output[3].local`` and everything else as the place does where the map
or branch stands; so an instance is the same specification with another scope, and nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from semantic_parrot.core.body import Branch, Call, Map, Result, Spec
from semantic_parrot.core.errors import NoMatch, TooLarge, WrongType
from semantic_parrot.core.operations import Transform
from semantic_parrot.core.shape import Prompt
from semantic_parrot.core.value import JSON, shown

Owner = TypeVar("Owner")

#: Nodes that the maps and branches of one program may become.
MAX_GROWTH = 100_000


@dataclass(slots=True)
class Growth:
    """How many nodes the maps and branches of one program have become; all its scopes share it."""

    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the names of a body lie. `names`: variables of the session by local name, where they differ. `prefix` of
    the ids in it. `site`: the id of the program's own node that it comes from, and `after`: the variable that the
    innermost map or branch went by; None in the program itself."""

    names: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    site: str | None = None
    after: str | None = None
    growth: Growth = field(default_factory=Growth)

    def variable(self, name: str) -> str:
        return self.names.get(name, name)


@dataclass(frozen=True, slots=True)
class Collect:
    """Stands in for a map or branch whose body is there: the values of `results`, `many` as a list or one alone."""

    kind: str
    results: tuple[str, ...]
    many: bool

    def awaits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.results))


#: What a node does. A call has become its prompt: of the program that it came in, nothing stays.
Work = Prompt | Transform | Map | Branch | Collect


@dataclass(slots=True, eq=False)
class Node(Generic[Owner]):
    """A node in the graph. `reads`: the session-wide variables that it awaits, in the order of `spec.awaits()`, its own
    names for them. `missing` counts those without a value; `owner` is told when that changes."""

    spec: Work
    id: str
    output: str
    reads: tuple[str, ...]
    owner: Owner
    scope: Scope
    missing: int = 0

    @property
    def site(self) -> str:
        """The id of the node of the program that it is or comes from."""
        return self.scope.site or self.id

    def __str__(self) -> str:
        return f"{self.spec.kind} {self.id!r}"


def place(spec: Spec, scope: Scope, owner: Owner) -> Node[Owner]:
    """`spec` as a node in `scope`."""
    names, reads = scope.names, spec.awaits()
    if names:
        reads = tuple([names.get(name, name) for name in reads])
    work = spec.prompt if isinstance(spec, Call) else spec
    return Node(work, scope.prefix + spec.id, scope.variable(spec.output), reads, owner, scope)


@dataclass(frozen=True, slots=True)
class Expansion(Generic[Owner]):
    """What a map or branch becomes: `items` are variables with their values, the last of `nodes` makes its output."""

    nodes: list[Node[Owner]]
    items: dict[str, JSON]


def expand(node: Node[Owner], value: JSON) -> Expansion[Owner]:
    """`node`, a map or branch, once `value` of what it goes by is there. Raises TransformFailed."""
    if isinstance(node.spec, Map):
        return _expand_map(node, node.spec, value)
    assert isinstance(node.spec, Branch)
    return _expand_branch(node, node.spec, value)


def _expand_map(node: Node[Owner], spec: Map, value: JSON) -> Expansion[Owner]:
    if not isinstance(value, list):
        raise WrongType(f"expected a list, got {shown(value)}")
    if len(value) > spec.bound:
        raise TooLarge(f"a list of {len(value)}, and the bound is {spec.bound}: {shown(value)}")
    _grow(node, len(value) * (len(spec.nodes()) + 1), value)
    nodes: list[Node[Owner]] = []
    items: dict[str, JSON] = {}
    results = []
    local = spec.local()
    for i, member in enumerate(value):
        scope = _scope(node, str(i), local)
        items[scope.variable(spec.item)] = member
        nodes += [place(inner, scope, node.owner) for inner in spec.nodes()]
        results.append(scope.variable(spec.result))
    return Expansion([*nodes, _collect(node, tuple(results), many=True)], items)


def _expand_branch(node: Node[Owner], spec: Branch, value: JSON) -> Expansion[Owner]:
    label, body = _taken(spec, value)
    _grow(node, len(body.nodes()) + 1, value)
    scope = _scope(node, label, body.local())
    nodes = [place(inner, scope, node.owner) for inner in body.nodes()]
    return Expansion([*nodes, _collect(node, (scope.variable(body.result),), many=False)], {})


def _taken(spec: Branch, value: JSON) -> tuple[str, Result]:
    for i, arm in enumerate(spec.arms):
        if arm.when == value:
            return str(i), arm
    if spec.default is None:
        raise NoMatch(f"no arm for {shown(value)}, and no default")
    return "default", spec.default


def _grow(node: Node[Owner], count: int, value: JSON) -> None:
    growth = node.scope.growth
    if growth.nodes + count > MAX_GROWTH:
        raise TooLarge(f"the program's maps and branches become more than {MAX_GROWTH} nodes, here for {shown(value)}")
    growth.nodes += count


def _scope(node: Node[Owner], label: str, local: set[str]) -> Scope:
    own = {name: f"{node.output}[{label}].{name}" for name in local}
    (after,) = node.reads
    return Scope({**node.scope.names, **own}, f"{node.id}[{label}].", node.site, after, node.scope.growth)


def _collect(node: Node[Owner], results: tuple[str, ...], many: bool) -> Node[Owner]:
    spec = Collect(node.spec.kind, results, many)
    return Node(spec, node.id, node.output, spec.awaits(), node.owner, node.scope)
