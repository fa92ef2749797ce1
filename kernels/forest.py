"""Which rows read the same blocks: the forest that tree attention walks.

Rows whose block tables begin alike share those blocks: a segment of the tree. Segments nest (a system prompt, then a
document, then a question), and what no segment covers is a row's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semantic_parrot.kernels.paging import Segment


@dataclass(frozen=True, slots=True)
class Shared:
    """The sequences `first` to `last` (exclusive, in the forest's order) all read `blocks`, whole; `begin`: which block
    of theirs the first of them is."""

    first: int
    last: int
    begin: int
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class Forest:
    """`order`: the sequences' segments, those that share standing together. `owned`: how many of each one's first
    blocks shared segments cover."""

    order: tuple[Segment, ...]
    shared: tuple[Shared, ...]
    owned: tuple[int, ...]


#: (sequences, blocks) → whether reading so many blocks once for so many sequences is worth a segment of its own.
Worth = Callable[[int, int], bool]


def forest(segments: Sequence[Segment], block_size: int, worth: Worth) -> Forest:
    """Blocks that the step writes to are nobody's to share."""
    order = sorted(segments, key=lambda s: tuple(s.blocks))
    same = [*alike(order, block_size), 0]
    shared: list[Shared] = []
    owned = [0] * len(order)
    todo = [(0, len(order), 0)]
    while todo:
        first, last, begin = todo.pop()
        if last - first < 2:
            continue
        end = min(same[first + 1 : last])
        if end > begin and worth(last - first, end - begin):
            shared.append(Shared(first, last, begin, order[first].blocks[begin:end]))
            owned[first:last] = [end] * (last - first)
            begin = end
        cut = first
        for i in range(first + 1, last + 1):
            if i == last or same[i] <= end:
                todo.append((cut, i, begin))
                cut = i
    return Forest(tuple(order), tuple(shared), tuple(owned))


def alike(order: Sequence[Segment], block_size: int) -> list[int]:
    """How many blocks each has in common with the one before it, of those that the step does not write to."""
    found = [0] * len(order)
    for i in range(1, len(order)):
        one, two = order[i - 1], order[i]
        found[i] = _common(one.blocks, two.blocks, min(one.context - one.rows, two.context - two.rows) // block_size)
    return found


def _common(left: Sequence[int], right: Sequence[int], limit: int) -> int:
    """Length of the longest common prefix, at most `limit`."""
    high = min(len(left), len(right), limit)
    if left[:high] == right[:high]:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
