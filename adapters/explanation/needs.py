"""Which calls a value is made of, by the transforms and maps between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semantic_parrot.adapters.plan import Plan
from semantic_parrot.core.wire import references


def producers(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The calls of each variable of `plan`."""
    makes: dict[str, tuple[str, ...]] = {call.variable: (call.variable,) for call in plan.calls}
    reads: dict[str, tuple[str, ...]] = {}
    for nodes in plan.nodes():
        _collect(nodes.body(), reads)

    def made_of(name: str) -> tuple[str, ...]:
        if name not in makes:
            makes[name] = tuple(dict.fromkeys(call for read in reads.get(name, ()) for call in made_of(read)))
        return makes[name]

    return {name: made_of(name) for name in (*makes, *reads)}


def _collect(body: Mapping[str, Any], reads: dict[str, tuple[str, ...]]) -> None:
    """What the variables that transforms and maps make are made of directly."""
    for made in body["transforms"]:
        of = made.get("of")
        reads[made["output"]] = references(made) if of is None else (of,)
    for each in body["maps"]:
        reads[each["item"]] = (each["over"],)
        reads[each["output"]] = (each["result"],)
        _collect(each, reads)
