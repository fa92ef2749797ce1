"""Marks: strings that stand for variables while a framework's own code renders a prompt.

The framework formats, converts and nests them as it would any text; afterwards they are cut out again and what is
left is a template of the wire. The nonce is random for each plan, so no text of a user can be taken for a mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semantic_parrot.core.wire import TEMPLATE


@dataclass(frozen=True, slots=True)
class Ref:
    """The text of a planned call's answer."""

    variable: str


Part = str | Ref


class Marks:
    def __init__(self, nonce: str) -> None:
        self._open = f"\ue000{nonce}:"
        self._split = re.compile(re.escape(self._open) + "([^\ue001]*)\ue001")

    def write(self, parts: Sequence[Part]) -> str:
        """`parts` as one string, with marks for its references."""
        return "".join(part if isinstance(part, str) else f"{self._open}{part.variable}\ue001" for part in parts)

    def marked(self, text: str) -> bool:
        return self._open in text

    def read(self, text: str) -> tuple[Part, ...]:
        """The reverse of `write`."""
        pieces = self._split.split(text)
        return tuple(Ref(piece) if i % 2 else piece for i, piece in enumerate(pieces) if i % 2 or piece)

    def templates(self, node: Any) -> Any:
        """`node` (JSON) with each marked string as a template of the wire."""
        if isinstance(node, str):
            if not self.marked(node):
                return node
            return {TEMPLATE: [p if isinstance(p, str) else {"var": p.variable} for p in self.read(node)]}
        if isinstance(node, dict):
            return {key: self.templates(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.templates(value) for value in node]
        return node
