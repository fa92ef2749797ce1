"""Marks: strings that stand for values of the server while a framework's own code renders a prompt.

The framework formats, converts and nests them as it would any text; afterwards they are cut out again and what is
left is a template of the wire. The nonce is random for each plan, so no text of a user can be taken for a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from semantic_parrot.core.wire import TEMPLATE

#: One of the server's transforms: its fields, without `id`, `of` and `output`.
Operation = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that the server makes: that of `variable`, after `operations`, one upon the other."""

    variable: str
    operations: tuple[Operation, ...] = ()

    def then(self, op: str, **fields: Any) -> Ref:
        """The value of the server's transform `op` on this one. `fields` are hashable: a list is given as a tuple."""
        return Ref(self.variable, (*self.operations, (("op", op), *fields.items())))


@dataclass(frozen=True, slots=True)
class Hole:
    """A string of the app's input, by its number, for a plan that is made once for many inputs; after `replaced`, each
    an old and a new string."""

    number: int
    replaced: tuple[tuple[str, str], ...] = ()


class Dependent(Exception):
    """What is planned depends on what stands in a hole."""


Part = str | Ref | Hole


class Marks:
    def __init__(self, nonce: str) -> None:
        self._open = f"\ue000{nonce}:"
        self._numbers: dict[Ref | Hole, int] = {}
        self._refs: list[Ref | Hole] = []

    def write(self, parts: Sequence[Part]) -> str:
        """`parts` as one string, with marks for its references and holes."""
        return "".join(part if isinstance(part, str) else f"{self._open}{self._number(part)}\ue001" for part in parts)

    def _number(self, ref: Ref | Hole) -> int:
        number = self._numbers.setdefault(ref, len(self._refs))
        if number == len(self._refs):
            self._refs.append(ref)
        return number

    def marked(self, text: str) -> bool:
        return self._open in text

    def read(self, text: str) -> tuple[Part, ...]:
        """The reverse of `write`."""
        first, *marked = text.split(self._open)
        parts: list[Part] = [first] if first else []
        for piece in marked:
            number, _, rest = piece.partition("\ue001")
            parts.append(self._refs[int(number)])
            if rest:
                parts.append(rest)
        return tuple(parts)

    def templates(self, node: Any, name: Callable[[Ref], str]) -> Any:
        """`node` (JSON) with each marked string as a template of the wire, in which holes stand as they are; `name`
        names the variable of a reference."""
        if isinstance(node, str):
            if not self.marked(node):
                return node
            return {TEMPLATE: [{"var": name(p)} if isinstance(p, Ref) else p for p in self.read(node)]}
        if isinstance(node, dict):
            return {key: self.templates(value, name) for key, value in node.items()}
        if isinstance(node, list):
            return [self.templates(value, name) for value in node]
        return node
