"""The program: what one POST /v1/runs carries. The wire form and the domain form are the same values.

Validation here is local to the program (shapes, names, ranges). What depends on the session a program joins,
such as references to earlier variables and cycles, is `core.check`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from semantic_parrot.core.body import Arm, Body, Branch, Call, Map, Result
from semantic_parrot.core.errors import DanglingReference, InvalidProgram, InvalidRequest
from semantic_parrot.core.model import Name, Reference, Value
from semantic_parrot.core.shape import Shapes

__all__ = [
    "Arm", "Body", "Branch", "Call", "Lifetime", "Map", "Milliseconds", "Objective", "Options", "Program", "Quota",
    "Result", "Source", "Sources", "Terms", "explain", "parse_program", "place",
]  # fmt: skip

Objective = Literal["latency", "throughput"]
Lifetime = Literal["prefetch", "foreground", "background"]
#: From now on, at most a week.
Milliseconds = Annotated[float, Field(gt=0, le=604_800_000, allow_inf_nan=False)]


class Quota(Value):
    """What a run may use: `tokens` (prompt and completion), `cost` (by the configured prices)."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _of_something(self) -> Quota:
        if self.tokens is None and self.cost is None:
            raise ValueError("a quota needs tokens or cost")
        return self

    def __str__(self) -> str:
        stated = (f"{self.tokens} tokens" if self.tokens else "", f"a cost of {self.cost:g}" if self.cost else "")
        return " and ".join(filter(None, stated))


class Source(Value):
    """A call of another run, by the ids of both. `run` None: a call that came alone, by the id of its answer."""

    run: Reference | None = None
    call: Reference

    @property
    def place(self) -> tuple[str, str]:
        """(run, call): one that came alone is the one call of a run of that id."""
        return self.run or self.call, self.call


#: Those of one call.
Sources = Annotated[list[Source], Field(max_length=16)]


class Options(Value):
    """Parrot's own hints, all in one field of the body. `deadline_ms`: what the run has not made by then is an error.
    `priority`: the higher one goes first among the calls of its tenant. `quota`: what the run may use.
    `max_concurrency`: so many of its calls are executed at a time, and the others wait their turn.
    `sources`: by call, those of other runs whose values are texts in its request. A hint: no answer depends on it."""

    session: str | None = None
    objectives: dict[Reference, Objective] = Field(default={})
    lifetime: Lifetime = "foreground"
    deadline_ms: Milliseconds | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    quota: Quota | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    sources: dict[Reference, Sources] = Field(default={})


@dataclass(frozen=True, slots=True)
class Terms:
    """What a program says of its run as a whole: the rest of it, with all the requests, is not kept. `wanted`: the
    outputs that the run returns."""

    wanted: tuple[str, ...]
    parrot: Options
    deltas: Literal["all"] | frozenset[str]

    def streams(self, node_id: str) -> bool:
        """Whether the text of call `node_id`, or of the calls in map or branch `node_id`, is to be sent as it comes."""
        return self.deltas == "all" or node_id in self.deltas


class Program(Body):
    """Nodes joined by variables; a DAG once it has joined its session's graph.

    `inputs` are variables with a value; None (sessions only) declares one that is set later. `outputs` are what
    the run returns; none named means every variable that no node of the program reads. `deltas` names the calls
    whose text streams as `variable.delta`; a map or a branch there stands for all calls in it.
    """

    inputs: dict[Name, JsonValue] = Field(default={})
    outputs: list[Reference] | None = None
    parrot: Options = Options()
    deltas: Literal["none", "all"] | list[Name] = "none"
    stream: bool = False

    def terms(self) -> Terms:
        named = frozenset(self.deltas if isinstance(self.deltas, list) else ())
        return Terms(self.wanted(), self.parrot, "all" if self.deltas == "all" else named)

    def wanted(self) -> tuple[str, ...]:
        """The outputs, or the sinks of the program where none are named."""
        return self.sinks() if self.outputs is None else tuple(self.outputs)

    def sinks(self) -> tuple[str, ...]:
        """The variables that no node of the program reads."""
        read = set(self.reads())
        return tuple(node.output for node in self.nodes() if node.output not in read)


def place(loc: Sequence[str | int]) -> str:
    """pydantic's location as a path: ``calls[0].request.max_tokens``."""
    text = ""
    for i, part in enumerate(loc):
        if isinstance(part, str) and i > 1 and loc[i - 2] == "transforms":
            continue  # not a field, but which of the operations it was
        if part == "[key]":
            continue  # it is the key itself that is wrong
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def explain(error: ValidationError, *, prefix: str = "") -> tuple[str, str]:
    """(message, place) of the first fault in a pydantic error, in words that name the field."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(filter(None, (prefix, place(fault["loc"]))))
    if fault["type"] == "extra_forbidden":
        return f"unknown or unsupported field {where!r}", where
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}", where


def parse_program(body: object) -> Program:
    """`body` (decoded JSON) as a Program.

    Raises InvalidRequest or InvalidProgram naming the place, before anything runs.
    """
    try:
        # Strict mode tells a list from a tuple and an int from a float, and JSON has only one of each.
        program = Program.model_validate(body)
    except ValidationError as error:
        message, where = explain(error)
        raise InvalidRequest(message, where=where) from None
    if not program.nodes():
        raise InvalidRequest("a program needs calls, transforms, maps or branches; calls is empty", where="calls")
    _check_body(program)
    shapes = Shapes()
    for _, node in program.places():
        if isinstance(node, Call):
            node.share(shapes)
    seen = {node.id for node in program.nodes()}
    if isinstance(program.deltas, list):
        for i, name in enumerate(program.deltas):
            if name not in seen:
                raise DanglingReference(f"deltas names the unknown call {name!r}", where=f"deltas[{i}]")
    for name in program.parrot.sources:
        if name not in seen:
            raise DanglingReference(f"sources names the unknown call {name!r}", where=f"parrot.sources.{name}")
    return program


def _check_body(body: Body, prefix: str = "") -> None:
    """Every body's ids are its own, and so is a map's `item`; no two arms answer to one value."""
    if len({node.id for node in body.nodes()}) < len(body.nodes()):
        _refuse_twins(body, prefix)
    for field in ("maps", "branches"):
        for i, node in enumerate(getattr(body, field)):
            where = f"{prefix}{field}[{i}]"
            if isinstance(node, Map) and any(inner.output == node.item for inner in node.nodes()):
                raise InvalidProgram(f"map {node.id!r}: a node produces its item {node.item!r}", where=f"{where}.item")
            if isinstance(node, Branch):
                _refuse_equal_arms(node, where)
            for inner, inner_body in node.bodies():
                _check_body(inner_body, f"{where}.{inner}")


def _refuse_twins(body: Body, prefix: str) -> None:
    seen: set[str] = set()
    for field in ("calls", "transforms", "maps", "branches"):
        for i, node in enumerate(getattr(body, field)):
            if node.id in seen:
                raise InvalidProgram(f"two nodes have the id {node.id!r}", where=f"{prefix}{field}[{i}].id")
            seen.add(node.id)


def _refuse_equal_arms(branch: Branch, where: str) -> None:
    for i, arm in enumerate(branch.arms):
        if any(arm.when == other.when for other in branch.arms[:i]):
            message = f"branch {branch.id!r} has two arms for {arm.when!r}"
            raise InvalidProgram(message, where=f"{where}.arms[{i}].when")
