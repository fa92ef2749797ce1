"""What the calls of a program have in common, once: an app's calls repeat their requests with other variables, and
thousands of them may wait."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from semantic_parrot.core.analysis.pieces import Skeleton, skeleton
from semantic_parrot.core.errors import InvalidProgram
from semantic_parrot.core.value import JSON
from semantic_parrot.core.wire import TEMPLATE, Request, parts_of, references, render


@dataclass(slots=True, eq=False)
class Shape:
    """A request in which the variables are called "0", "1" …, in the order of their first use: its `parameters`."""

    request: dict[str, Any]
    parameters: tuple[str, ...]
    _skeleton: Skeleton | None = None

    @property
    def skeleton(self) -> Skeleton:
        """Of a request that is valid."""
        if self._skeleton is None:
            self._skeleton = skeleton(self.request)
        return self._skeleton

    @property
    def model(self) -> str:
        """Of a request that is valid: it may be a template, of constants alone."""
        name = self.request["model"]
        return name if isinstance(name, str) else str(render({"model": name}, {})["model"])


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a call asks: a request of `shape`, whose parameters are the variables `names`."""

    kind: ClassVar[str] = "call"

    shape: Shape
    names: tuple[str, ...]

    def awaits(self) -> tuple[str, ...]:
        return self.shape.parameters


@dataclass(slots=True)
class Shapes:
    """Of one program: equal shapes are one object, and so are equal texts, messages and names."""

    _shapes: dict[Hashable, Shape] = field(default_factory=dict)
    _nodes: dict[Hashable, JSON] = field(default_factory=dict)

    def prompt(self, request: Request, where: str) -> Prompt:
        """Raises InvalidProgram, with the place, for a malformed template."""
        names: dict[str, int] = {}
        try:
            form = _form(request, names)
        except InvalidProgram:
            references(request, where)  # again, with places: they cost more than all the rest
            raise
        shape = self._shapes.get(form)
        if shape is None:
            parameters = tuple(map(str, range(len(names))))
            shape = self._shapes[form] = Shape(self._json(form), parameters)
        once = self._nodes.setdefault
        return Prompt(shape, tuple([once(name, name) for name in names]))

    def _json(self, form: Any) -> JSON:
        """What `form` is the form of, with numbered variables."""
        if type(form) is str:
            return self._nodes.setdefault(form, form)
        found = self._nodes.get(form)
        if found is None:
            tag, *rest = form
            if tag is TEMPLATE:
                once = self._nodes.setdefault
                parts = [once(part, {"var": str(part)}) if type(part) is int else self._json(part) for part in rest]
                found = {TEMPLATE: parts}
            elif tag is dict:
                found = {key: self._json(value) for key, value in rest}
            elif tag is list:
                found = [self._json(value) for value in rest]
            else:
                return rest[-1]
            self._nodes[form] = found
        return found


def _form(node: JSON, names: dict[str, int]) -> Hashable:
    """Equal for JSON that is equal but for names of variables, which `names` numbers; 0, 0.0 and false are not."""
    if isinstance(node, dict):
        if TEMPLATE in node:
            number = names.setdefault
            parts = parts_of(node, "")
            return TEMPLATE, *[part if isinstance(part, str) else number(part["var"], len(names)) for part in parts]
        return dict, *[(key, value if type(value) is str else _form(value, names)) for key, value in node.items()]
    if isinstance(node, list):
        return list, *[value if type(value) is str else _form(value, names) for value in node]
    return (float, repr(node), node) if isinstance(node, float) else (type(node), node)
