"""What the steps of programs say of their future, were every engine idle: for whoever wants to see it."""

from __future__ import annotations

from collections.abc import Mapping

from semantic_parrot.core.analysis.step import Step


def needs(step: Step) -> list[str]:
    """The calls that `step` waits for, directly or through what is done in the graph."""
    found: dict[str, None] = {}
    todo, seen = list(reversed(step.producers)), set[int]()
    while todo:
        producer = todo.pop()
        if id(producer) in seen:
            continue
        seen.add(id(producer))
        if producer.planned.skeleton is not None:
            found[producer.planned.output] = None
        else:
            todo.extend(reversed(producer.producers))
    return list(found)


def earliest(steps: Mapping[str, Step]) -> dict[str, float]:
    """Seconds from the start at which each could begin, were every engine idle."""
    begins: dict[str, float] = {}
    for step in sorted(steps.values(), key=lambda step: step.depth):
        ends = (begins[p.planned.output] + p.planned.seconds for p in step.producers)
        begins[step.planned.output] = max(ends, default=0.0)
    return begins


def stages(steps: Mapping[str, Step]) -> dict[str, int]:
    """Calls on the longest chain that ends with each."""
    found: dict[str, int] = {}
    for step in sorted(steps.values(), key=lambda step: step.depth):
        before = max((found[p.planned.output] for p in step.producers), default=0)
        found[step.planned.output] = before + (step.planned.skeleton is not None)
    return found


def path(steps: Mapping[str, Step]) -> dict[str, None]:
    """The critical path, from the first to the last."""
    found: dict[str, None] = {}
    following: list[Step] = list(steps.values())
    while following:
        step = max(following, key=lambda step: step.remaining)
        found[step.planned.output] = None
        following = step.consumers
    return found
