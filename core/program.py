"""The program: what one POST /v1/runs carries. The wire form and the domain form are the same values.

Validation here is local to the program (shapes, names, ranges). What depends on the session a program joins,
such as references to earlier variables and cycles, is `core.graph`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from semantic_parrot.core.errors import DanglingReference, InvalidProgram, InvalidRequest
from semantic_parrot.core.wire import references

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Objective = Literal["latency", "throughput"]
Lifetime = Literal["prefetch", "foreground"]


class Value(BaseModel):
    """A frozen value of the wire: unknown fields are refused, nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Call(Value):
    """One LLM request. `request` is an OpenAI chat or completion body with templates; `output` names its text."""

    id: Name
    output: Name
    request: dict[str, Any]

    def inputs(self) -> tuple[str, ...]:
        """The variables that the call reads, in order of first use."""
        return references(self.request, f"call {self.id!r}.request")


class Options(Value):
    """Parrot's own hints, all in one field of the body."""

    session: str | None = None
    objectives: dict[Name, Objective] = {}
    lifetime: Lifetime = "foreground"


class Program(Value):
    """Calls joined by variables; a DAG once it has joined its session's graph.

    `inputs` are variables with a value; None (sessions only) declares one that is set later. `outputs` are what
    the run returns; none named means every variable that no call of the program reads. `deltas` names the calls
    whose text streams as `variable.delta`.
    """

    calls: Annotated[list[Call], Field(min_length=1, max_length=100_000)]
    inputs: dict[Name, str | None] = {}
    outputs: list[Name] | None = None
    parrot: Options = Options()
    deltas: Literal["none", "all"] | list[Name] = "none"
    stream: bool = False

    def streams(self, call_id: str) -> bool:
        """Whether the text of call `call_id` is to be sent as it comes."""
        return self.deltas == "all" or (self.deltas != "none" and call_id in self.deltas)

    def wanted(self) -> tuple[str, ...]:
        """The outputs, or the sinks of the program where none are named."""
        if self.outputs is not None:
            return tuple(self.outputs)
        read = {name for call in self.calls for name in call.inputs()}
        return tuple(call.output for call in self.calls if call.output not in read)


def place(loc: Sequence[str | int]) -> str:
    """pydantic's location as a path: ``calls[0].request.max_tokens``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def explain(error: ValidationError, *, prefix: str = "") -> tuple[str, str]:
    """(message, place) of the first fault in a pydantic error, in words that name the field."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(filter(None, (prefix, place(fault["loc"]))))
    if fault["type"] == "extra_forbidden":
        return f"unknown or unsupported field {where!r}", where
    return f"{where}: {fault['msg']}", where


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
    seen: set[str] = set()
    for i, call in enumerate(program.calls):
        if call.id in seen:
            raise InvalidProgram(f"two calls have the id {call.id!r}", where=f"calls[{i}].id")
        seen.add(call.id)
    if isinstance(program.deltas, list):
        for i, name in enumerate(program.deltas):
            if name not in seen:
                raise DanglingReference(f"deltas names the unknown call {name!r}", where=f"deltas[{i}]")
    return program
