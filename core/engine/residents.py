"""Which of the prefixes that the scheduler named are in the prefix tree: what has changed is told to it.

A prefix is in the tree as long as some node has its last token. Nodes whose KV stands in the second tier count: it is
copied back sooner than computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from semantic_parrot.core.engine.kv import BLOCK_SIZE
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engines.protocol import Mark, PrefixChange

#: By the block of a prompt that has their last token, the names of the prefixes that end there.
Marks = Mapping[int, tuple[int, ...]]

#: Names that one node bears, at most: of further ones nothing is told.
MOST = 8


def marks_of(marks: tuple[Mark, ...], prompt: int) -> Marks:
    """Of a prompt of so many tokens. Where a prefix ends is a guess: the scheduler counts in characters."""
    found: dict[int, tuple[int, ...]] = {}
    for mark in marks:
        block = (max(round(mark.share * prompt), 1) - 1) // BLOCK_SIZE
        found[block] = (*found.get(block, ()), mark.name)
    return found


class Residents:
    """Owned by the prefix tree."""

    def __init__(self) -> None:
        self._nodes: Counter[int] = Counter()  # that have the prefix's last token
        self._added: dict[int, None] = {}
        self._evicted: dict[int, None] = {}

    def came(self, node: Node, names: tuple[int, ...]) -> None:
        """These prefixes end in `node`, which is in the tree."""
        for name in names:
            if name not in node.names and len(node.names) < MOST:
                node.names = (*node.names, name)
                self._nodes[name] += 1
                if self._nodes[name] == 1:
                    self._changed(name, self._added, self._evicted)

    def gone(self, node: Node) -> None:
        """`node` is in the tree no more."""
        for name in node.names:
            self._nodes[name] -= 1
            if not self._nodes[name]:
                del self._nodes[name]
                self._changed(name, self._evicted, self._added)
        node.names = ()

    def _changed(self, name: int, now: dict[int, None], before: dict[int, None]) -> None:
        if name in before:  # nobody was told yet
            del before[name]
        else:
            now[name] = None

    def take(self) -> PrefixChange | None:
        """What has changed since the last time; None: nothing."""
        if not self._added and not self._evicted:
            return None
        change = PrefixChange(tuple(self._added), tuple(self._evicted))
        self._added, self._evicted = {}, {}
        return change
