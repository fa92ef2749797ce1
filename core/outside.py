"""What a call needs of other runs: where the graph of its own run is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semantic_parrot.core.instance import Node
from semantic_parrot.core.shape import Prompt

if TYPE_CHECKING:
    from semantic_parrot.core.graph import Graph
    from semantic_parrot.core.run import Run

#: Calls of other runs that are named for one call.
MOST = 16


def outside(graph: Graph[Run], node: Node[Run]) -> tuple[tuple[str, str], ...]:
    """(run id, call id) of the calls of other runs whose values `node` reads, directly or through transforms, maps and
    branches; each once, MOST at most."""
    found: dict[tuple[str, str], None] = {}
    seen, todo = {node.output}, list(reversed(node.reads))
    while todo and len(found) < MOST:
        variable = graph.variables.get(todo.pop())
        if variable is None or variable.producer is None or variable.name in seen:
            continue
        seen.add(variable.name)
        producer = variable.producer
        if isinstance(producer.spec, Prompt):
            if producer.owner is not node.owner:
                found[producer.owner.id, producer.id] = None
        else:
            todo += reversed(producer.reads)
    return tuple(found)
