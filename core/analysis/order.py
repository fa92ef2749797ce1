"""The order in which what joins together is analysed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semantic_parrot.core.analysis.step import Planned


def in_order(planned: Sequence[Planned]) -> Iterable[Planned]:
    """`planned` in topological order; as it is, if it is in order already (most programs are)."""
    made = {call.output for call in planned}
    seen: set[str] = set()
    for call in planned:
        if any(name in made and name not in seen for name in call.inputs):
            break
        seen.add(call.output)
    else:
        return planned
    waits = {call.output: sum(name in made for name in call.inputs) for call in planned}
    readers: dict[str, list[Planned]] = {}
    for call in planned:
        for name in call.inputs:
            if name in made:
                readers.setdefault(name, []).append(call)
    order = [call for call in planned if not waits[call.output]]
    for call in order:  # grows while it is read
        for reader in readers.get(call.output, ()):
            waits[reader.output] -= 1
            if not waits[reader.output]:
                order.append(reader)
    assert len(order) == len(planned), "the graph refuses cycles before anything is analysed"
    return order
