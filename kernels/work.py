"""What a step's attention kernels do, made up on the host: which tile of rows attends to which range of tokens.

A row's tokens may be cut into several ranges; each then gives a part, and the row a list of parts to merge. The
operations add items to this (`paged_attention`, `tree_attention`, `prefill_attention`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from semantic_parrot.kernels.paging import Segment


class Item(NamedTuple):
    """The `height` rows from `first` on attend to the tokens `begin` to `end` of the block table that starts at
    `table`: token t is in the block that `tables[table + t // block_size]` names."""

    first: int
    height: int
    table: int
    begin: int
    end: int


class Row(NamedTuple):
    """`query`: which row of the step; `position` in its sequence."""

    query: int
    position: int


class Work:
    """`group`: query heads to a KV head."""

    def __init__(self, group: int, block_size: int) -> None:
        self.group, self.block_size = group, block_size
        self.rows: list[Row] = []
        self.tables: list[int] = []
        self.items: dict[str, list[Item]] = {}

    def enter(self, s: Segment) -> int:
        """Take the rows of `s`; which of `rows` the first one is."""
        first = len(self.rows)
        self.rows += [Row(s.start + i, s.context - s.rows + i) for i in range(s.rows)]
        return first

    def table(self, blocks: Sequence[int], skipped: int) -> int:
        """A block table of which only `blocks` are wanted, that come after `skipped` others."""
        begin = len(self.tables) - skipped
        self.tables += blocks
        return begin

    def add(self, operation: str, pairs: int, rows: range, table: int, begin: int, end: int) -> None:
        """Let `rows`, in tiles of `pairs` (row, query head) pairs, attend to the tokens `begin` to `end`."""
        items = self.items.setdefault(operation, [])
        each = pairs // self.group
        for first in range(rows.start, rows.stop, each):
            height = min(each, rows.stop - first)
            stop = min(end, self.rows[first + height - 1].position + 1)  # no row of a segment sees past its last one
            if begin < stop:
                items.append(Item(first, height, table, begin, stop))

    def cut(self, size: Callable[[str, list[int]], int]) -> None:
        """Cut the tokens of items into ranges; `size`: (operation, tokens of each item) → tokens of a range."""
        for operation, items in self.items.items():
            most = size(operation, [item.end - item.begin for item in items])
            self.items[operation] = [
                item._replace(begin=at, end=min(at + most, item.end))
                for item in items
                for at in range(item.begin, item.end, most)
            ]

    def parts(self) -> tuple[dict[str, list[int]], list[list[int]]]:
        """Where items put their parts: for each its first slot, -1 if it is all that its rows see; and each row's
        slots, none if there is nothing to merge."""
        count = Counter(
            row for item in chain(*self.items.values()) for row in range(item.first, item.first + item.height)
        )
        slots: list[list[int]] = [[] for _ in self.rows]
        firsts: dict[str, list[int]] = {}
        used = 0
        for operation, items in self.items.items():
            firsts[operation] = found = []
            for item in items:
                rows = range(item.first, item.first + item.height)
                if all(count[row] == 1 for row in rows):
                    found.append(-1)
                    continue
                found.append(used)
                for i, row in enumerate(rows):
                    slots[row].append(used + i)
                used += item.height
        return firsts, slots
