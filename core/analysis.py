"""What the core deduces of a program before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from semantic_parrot.core.program import Call, Objective


def objectives(calls: Sequence[Call], stated: Mapping[str, Objective]) -> dict[str, Objective]:
    """The objective of each call id, deduced from those stated for outputs (paper, §5.2).

    A call that only throughput outputs need is a throughput call; where a latency output needs it too, the
    stricter one wins. A call that nothing stated reaches is a latency call: somebody may be waiting for it.
    """
    producers = {call.output: call for call in calls}

    def upstream(names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = [name for name in names if name in producers]
        while todo:
            call = producers[todo.pop()]
            if call.id not in found:
                found.add(call.id)
                todo.extend(name for name in call.inputs() if name in producers)
        return found

    batch = upstream(name for name, objective in stated.items() if objective == "throughput")
    batch -= upstream(name for name, objective in stated.items() if objective == "latency")
    return {call.id: "throughput" if call.id in batch else "latency" for call in calls}
