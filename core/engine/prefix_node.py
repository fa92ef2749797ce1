"""A node of the prefix tree: one block's tokens, after those of its ancestors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from semantic_parrot.core.engine.retention import UNKNOWN


@dataclass(slots=True, eq=False)
class Node:
    """`block`: where its KV stands, 0 if nowhere in the cache; then `slot` says where in the second tier. A node whose
    block is 0 has no child that has one. `used`, `next_use`: see `retention`."""

    tokens: tuple[int, ...]
    parent: Node | None
    block: int = 0
    slot: int | None = None
    resident: int = 0  # children that have a block
    used: int = 0
    next_use: float = UNKNOWN
    told: float = -inf  # when that was said
    names: tuple[int, ...] = ()  # of the prefixes that end in it: see `residents`
    exact: dict[tuple[int, ...], Node] = field(default_factory=dict)
    by_first: dict[int, list[Node]] = field(default_factory=dict)

    def add(self, child: Node) -> None:
        self.exact[child.tokens] = child
        self.by_first.setdefault(child.tokens[0], []).append(child)

    def remove(self, child: Node) -> None:
        del self.exact[child.tokens]
        siblings = self.by_first[child.tokens[0]]
        siblings.remove(child)
        if not siblings:
            del self.by_first[child.tokens[0]]

    def best(self, tokens: tuple[int, ...]) -> tuple[int, Node | None]:
        """The child with which `tokens` agree longest, and how long; of equal ones, one that has a block."""
        most, found = 0, None
        for child in self.by_first.get(tokens[0], ()) if tokens else ():
            agree = common(child.tokens, tokens)
            if agree > most or (agree == most and found is not None and child.block and not found.block):
                most, found = agree, child
        return most, found

    def below(self) -> Iterator[Node]:
        """Itself and all its descendants."""
        todo = [self]
        while todo:
            node = todo.pop()
            todo += node.exact.values()
            yield node


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix. Both of one type: tuples, or lists."""
    high = min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    low = 0  # left[:low] == right[:low] and left[:high] != right[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
