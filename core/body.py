"""What programs are made of: calls, transforms, maps and branches. Names inside a body are its own; what it does not
define it reads from around it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from semantic_parrot.core.model import Name, Reference, Value
from semantic_parrot.core.operations import Transform
from semantic_parrot.core.shape import Prompt, Shapes

#: Items that one map may have.
MAX_BOUND = 10_000


class Call(Value):
    """One LLM request. `request` is an OpenAI chat or completion body with templates; `output` names its text."""

    kind: ClassVar[str] = "call"

    id: Name
    output: Name
    request: dict[str, Any]

    @cached_property
    def prompt(self) -> Prompt:
        """Raises InvalidProgram, with the place, for a malformed template."""
        return self.share(Shapes())

    def share(self, shapes: Shapes) -> Prompt:
        """The prompt, made of `shapes`, which other calls are made of too. Raises as `prompt`."""
        prompt = shapes.prompt(self.request, f"call {self.id!r}.request")
        self.__dict__["prompt"] = prompt  # where it is cached
        return prompt

    def inputs(self) -> tuple[str, ...]:
        """The variables that the call reads, in order of first use."""
        return self.prompt.names

    def awaits(self) -> tuple[str, ...]:
        return self.inputs()


class Body(Value):
    """Nodes that run together."""

    calls: list[Call] = Field(default=[], max_length=100_000)
    transforms: list[Transform] = Field(default=[], max_length=100_000)
    maps: list[Map] = Field(default=[], max_length=100_000)
    branches: list[Branch] = Field(default=[], max_length=100_000)

    def nodes(self) -> tuple[Spec, ...]:
        return (*self.calls, *self.transforms, *self.maps, *self.branches)

    def local(self) -> set[str]:
        """The names that are the body's own."""
        return {node.output for node in self.nodes()}

    def outer(self) -> tuple[str, ...]:
        """The names that it reads from around it, each once."""
        local = self.local()
        return tuple(dict.fromkeys(name for name in self.reads() if name not in local))

    def reads(self) -> Iterator[str]:
        for node in self.nodes():
            yield from node.inputs()

    def places(self, prefix: str = "") -> Iterator[tuple[str, Spec]]:
        """Every node of the body and of the bodies in it, with its place."""
        for field in ("calls", "transforms", "maps", "branches"):
            for i, node in enumerate(getattr(self, field)):
                where = f"{prefix}{field}[{i}]"
                yield where, node
                if isinstance(node, Map | Branch):
                    for inner, body in node.bodies():
                        yield from body.places(f"{where}.{inner}")


class Result(Body):
    """A body that stands for one value: that of the variable `result`, its own or one from around it."""

    result: Reference

    def reads(self) -> Iterator[str]:
        yield from super().reads()
        yield self.result


class Map(Result):
    """The body once for each member of the list `over`, which it sees as `item`; `output` is the list of results.

    A list of more than `bound` members is an error on `output`, and so is one failed item.
    """

    kind: ClassVar[str] = "map"

    id: Name
    output: Name
    over: Reference
    item: Name
    bound: Annotated[int, Field(ge=1, le=MAX_BOUND)]

    def local(self) -> set[str]:
        return {*super().local(), self.item}

    def bodies(self) -> tuple[tuple[str, Result], ...]:
        """(place, body) of each."""
        return (("", self),)

    def awaits(self) -> tuple[str, ...]:
        return (self.over,)

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.over, *self.outer())))


class Arm(Result):
    when: JsonValue


class Branch(Value):
    """The one arm whose `when` equals the value of `on` (by Python's ``==``), else `default`; `output` is its result.
    Nothing of the others runs."""

    kind: ClassVar[str] = "branch"

    id: Name
    output: Name
    on: Reference
    arms: Annotated[list[Arm], Field(min_length=1, max_length=100)]
    default: Result | None = None

    def bodies(self) -> tuple[tuple[str, Result], ...]:
        arms = tuple((f"arms[{i}].", arm) for i, arm in enumerate(self.arms))
        return arms if self.default is None else (*arms, ("default.", self.default))

    def awaits(self) -> tuple[str, ...]:
        return (self.on,)

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.on, *(name for _, body in self.bodies() for name in body.outer()))))


Spec = Call | Transform | Map | Branch

Body.model_rebuild()
