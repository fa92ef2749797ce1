"""What the core deduces of a program before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from semantic_parrot.core.body import Spec
from semantic_parrot.core.program import Objective


def objectives(nodes: Sequence[Spec], stated: Mapping[str, Objective]) -> dict[str, Objective]:
    """The objective of each node id, deduced from those stated for outputs (paper, §5.2).

    A node that only throughput outputs need is for throughput; where a latency output needs it too, the stricter one
    wins. A node that nothing stated reaches is for latency: somebody may be waiting for it. Calls in a map or branch
    have its objective.
    """
    producers = {node.output: node for node in nodes}

    def upstream(names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = [name for name in names if name in producers]
        while todo:
            node = producers[todo.pop()]
            if node.id not in found:
                found.add(node.id)
                todo.extend(name for name in node.inputs() if name in producers)
        return found

    batch = upstream(name for name, objective in stated.items() if objective == "throughput")
    batch -= upstream(name for name, objective in stated.items() if objective == "latency")
    return {node.id: "throughput" if node.id in batch else "latency" for node in nodes}
