"""Which calls are ready once a call ends, for the engine that runs it (Directions.feeds)."""

from __future__ import annotations

from semantic_parrot.core.graph import Graph
from semantic_parrot.core.instance import Owner
from semantic_parrot.core.shape import Prompt

#: Calls that are named, and inputs of one that are looked at: of what is wider the engine is told nothing.
MOST = 16


def feeds(graph: Graph[Owner], scope: str, output: str) -> tuple[str, ...]:
    """Calls that wait for variable `output`, and besides for nothing but calls that run already."""
    found = []
    for node in graph.variables[output].consumers[: MOST + 1]:
        if isinstance(node.spec, Prompt) and 0 < node.missing <= MOST and len(node.reads) <= 2 * MOST:
            producers = [graph.variables[name].producer for name in node.reads if not graph.variables[name].settled]
            if all(producer is not None and not producer.missing for producer in producers):
                found.append(f"{scope}/{node.output}")
    return tuple(found) if len(found) <= MOST else ()
