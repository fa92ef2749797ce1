"""A plan with holes in it, made once for all inputs of one shape: filled in, it is the plan of one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from semantic_parrot.adapters.marks import Hole
from semantic_parrot.adapters.plan import Nodes, Plan, PlannedCall
from semantic_parrot.core.wire import TEMPLATE

Fill = Callable[[Sequence[str]], Any]


class Recipe:
    """Of `plan`, to which nothing is added any more."""

    def __init__(self, plan: Plan) -> None:
        self._covered = Counter(plan.covered)
        self._calls = [(call, _filler(call.request)) for call in plan.calls]
        number = {id(call): i for i, call in enumerate(plan.calls)}
        self._nodes = [
            (nodes.endpoint, [number[id(call)] for call in nodes.calls], _filler(nodes.transforms), _filler(nodes.maps))
            for nodes in plan.nodes()
        ]
        self._originals = plan.nodes()

    def fill(self, strings: Sequence[str]) -> Plan:
        """`strings`: what stands in the holes, by number."""
        calls = [
            call
            if filled is None
            else PlannedCall(call.variable, filled(strings), call.endpoint, call.site, call.repeated, call.inputs)
            for call, filled in self._calls
        ]
        made = {
            endpoint: Nodes(
                endpoint,
                [calls[i] for i in numbers],
                original.transforms if transforms is None else transforms(strings),
                original.maps if maps is None else maps(strings),
            )
            for (endpoint, numbers, transforms, maps), original in zip(self._nodes, self._originals, strict=True)
        }
        return Plan.of(calls, made, self._covered)


def _filler(node: Any, *, template: bool = False) -> Fill | None:
    """What makes `node` (JSON) whole; None if it is. What is made shares all that has no hole in it. `template`: it
    stays one even if it is all text."""
    if isinstance(node, dict):
        if TEMPLATE in node:
            return _text(node, template) if any(isinstance(part, Hole) for part in node[TEMPLATE]) else None
        # The one field of a transform that holds a template is a template whatever is in it.
        inner = {key: _filler(value, template=key == "template") for key, value in node.items()}
        changed = [(key, fill) for key, fill in inner.items() if fill is not None]
        return _Dict(node, changed) if changed else None
    if isinstance(node, list):
        changed_at = [(i, fill) for i, fill in enumerate(map(_filler, node)) if fill is not None]
        return _List(node, changed_at) if changed_at else None
    return None


class _Dict:
    __slots__ = ("_changed", "_node")

    def __init__(self, node: dict[str, Any], changed: list[tuple[str, Fill]]) -> None:
        self._node, self._changed = node, changed

    def __call__(self, strings: Sequence[str]) -> dict[str, Any]:
        made = self._node.copy()
        for key, fill in self._changed:
            made[key] = fill(strings)
        return made


class _List:
    __slots__ = ("_changed", "_node")

    def __init__(self, node: list[Any], changed: list[tuple[int, Fill]]) -> None:
        self._node, self._changed = node, changed

    def __call__(self, strings: Sequence[str]) -> list[Any]:
        made = self._node.copy()
        for i, fill in self._changed:
            made[i] = fill(strings)
        return made


def _text(node: dict[str, Any], template: bool) -> Fill:
    parts = node[TEMPLATE]
    if template or any(isinstance(part, dict) for part in parts):
        return lambda strings: {TEMPLATE: _merged(parts, strings)}
    return lambda strings: "".join([_string(part, strings) for part in parts])


def _merged(parts: Sequence[Any], strings: Sequence[str]) -> list[Any]:
    """As `Marks.read` gives them: no two texts side by side, and none that is empty."""
    merged: list[Any] = []
    for part in parts:
        if isinstance(part, dict):
            merged.append(part)
            continue
        text = _string(part, strings)
        if merged and isinstance(merged[-1], str):
            merged[-1] += text
        elif text:
            merged.append(text)
    return merged


def _string(part: str | Hole, strings: Sequence[str]) -> str:
    if isinstance(part, str):
        return part
    text = strings[part.number]
    for old, new in part.replaced:
        text = text.replace(old, new)
    return text
