"""Plans that are kept: for a chain that runs again, with an input of the same shape, only the strings are filled in."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.langchain.guards import Guards
from semantic_parrot.adapters.langchain.inputs import lift_shape, shape_of
from semantic_parrot.adapters.langchain.values import Value
from semantic_parrot.adapters.marks import Dependent
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.recipe import Recipe

#: Shapes of input that are kept for a chain, and how often what a chain is made of may change until nothing is.
SHAPES, CHANGES = 64, 8


@dataclass(slots=True)
class _Kept:
    """`recipes`: by shape; None where the plan depends on more than that."""

    root: weakref.ref[Any]
    guards: Guards | None = None
    version: int = 0
    changes: int = 0
    recipes: dict[Hashable, Recipe | None] = field(default_factory=dict)


class PlanCache:
    """For plans of whole chains. Safe to share between threads: of two that make the same plan, one is kept."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def plan(self, root: Any, value: object, way: Hashable, version: int, make: Callable[[Value], Plan]) -> Plan | None:
        """The plan of running `root` on `value`; None if that is to be made anew. `way`, `version`: what else it
        depends on; of an older version nothing is kept. `make` plans a value with holes."""
        kept = self._kept.get(id(root))
        if kept is None or kept.root() is not root:
            # A chain that is built anew for each run is never seen again, and not worth it.
            number = id(root)
            self._kept[number] = _Kept(weakref.ref(root, lambda _: self._kept.pop(number, None)), version=version)
            return None
        if kept.changes > CHANGES:
            return None
        strings: list[str] = []
        try:
            shape = (way, shape_of(value, strings))
            if kept.guards is None or kept.version != version or not kept.guards.hold():
                kept.changes += kept.guards is not None
                kept.recipes = {}
                kept.guards, kept.version = Guards(root), version
            recipes = kept.recipes  # another thread may find a change, and begin anew, while a plan is made here
            if shape not in recipes:
                if len(recipes) >= SHAPES:
                    recipes = kept.recipes = {}
                recipes[shape] = None
                recipes[shape] = Recipe(make(lift_shape(value, [])))
        except Dependent:
            return None
        recipe = recipes[shape]
        return None if recipe is None else recipe.fill(strings)
