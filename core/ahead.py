"""Pipelined prefill: a prompt that waits for a variable is filled as far as it is known, while it waits.

Its constant beginning when its producer starts, then the producer's text as that comes. All of it is a hint to the
engine, which compares tokens in the end: what was filled for nothing costs idle time, and changes no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from semantic_parrot.core.body import Call
from semantic_parrot.core.graph import Graph, Variable
from semantic_parrot.core.instance import Node, Owner
from semantic_parrot.core.request import UNKNOWN
from semantic_parrot.core.value import JSON
from semantic_parrot.core.wire import render

#: Characters that a producer's text grows by before its readers' prompts are filled on.
EVERY = 600

#: (key, body up to UNKNOWN, or None to take it back): see Engine.prefill.
Prefill = Callable[[Hashable, Mapping[str, Any] | None], None]


class Ahead:
    """For the calls of one graph, the graph named `scope`. Owned by the event loop; its methods return at once.

    `prefill` None: nothing is filled, and nothing is done for it.
    """

    def __init__(self, graph: Graph[Owner], scope: str, prefill: Prefill | None) -> None:
        self._graph = graph
        self._scope = scope
        self._prefill = prefill
        self._filling: set[str] = set()
        self._texts: dict[str, str] = {}
        self._told: dict[str, int] = {}

    def started(self, name: str) -> None:
        """The producer of variable `name` runs: its readers are next, and there is time until it ends."""
        if self._prefill is None:
            return
        for node in self._graph.variables[name].consumers:
            if isinstance(node.spec, Call) and node.missing and node.output not in self._filling:
                self._fill(node, self._prefill)

    def grew(self, name: str, text: str) -> None:
        """The producer of variable `name` has generated more `text`."""
        if self._prefill is None:
            return
        readers = [n for n in self._graph.variables[name].consumers if isinstance(n.spec, Call)]
        if not readers:
            return
        known = self._texts[name] = self._texts.get(name, "") + text
        if len(known) - self._told.get(name, 0) < EVERY:
            return
        self._told[name] = len(known)
        for node in readers:
            if node.missing and self._first_unknown(node) == name:
                self._fill(node, self._prefill)

    def over(self, name: str) -> None:
        """Variable `name` is made, or being made now: nothing is to be filled for its call any more."""
        if self._prefill is not None and name in self._filling:
            self._filling.remove(name)
            self._prefill((self._scope, name), None)

    def settled(self, variable: Variable[Owner]) -> None:
        self.over(variable.name)
        self._texts.pop(variable.name, None)
        self._told.pop(variable.name, None)

    def _first_unknown(self, node: Node[Owner]) -> str | None:
        return next((name for name in node.reads.values() if not self._graph.variables[name].settled), None)

    def _fill(self, node: Node[Owner], prefill: Prefill) -> None:
        assert isinstance(node.spec, Call)
        values: dict[str, JSON] = {}
        for local, name in node.reads.items():
            variable = self._graph.variables[name]
            values[local] = variable.value if variable.settled else self._texts.get(name, "") + UNKNOWN
        self._filling.add(node.output)
        prefill((self._scope, node.output), render(node.spec.request, values))
