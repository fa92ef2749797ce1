"""The prefix tree, small enough to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from semantic_parrot.core.engine.kv import BlockPool
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engines.protocol import CachedPrefix

#: Branches of one prefix that are told, levels of them, nodes that are looked at, and characters of a text.
BRANCHES, LEVELS, NODES, CHARACTERS = 8, 6, 4000, 160


class Outline:
    """`decode` None: no text is told. Reads the tree between two steps; changes nothing."""

    def __init__(self, pool: BlockPool, decode: Callable[[Sequence[int]], str] | None) -> None:
        self._pool = pool
        self._decode = decode
        self._left = NODES

    def of(self, roots: Iterable[Node]) -> tuple[CachedPrefix, ...]:
        """What is resident below `roots`, the last used first. Nodes that do not branch are one prefix."""
        tops = [child for root in roots for child in _resident(root)]
        tops.sort(key=_last_used)
        return tuple(self._prefix(top, 1) for top in tops[:BRANCHES])

    def _prefix(self, node: Node, level: int) -> CachedPrefix:
        tokens, blocks, sequences = list(node.tokens), 1, self._pool.holders(node.block)
        below = _resident(node)
        while len(below) == 1 and self._left > 0:
            self._left -= 1
            node = below[0]
            tokens += node.tokens
            blocks += 1
            below = _resident(node)
        below.sort(key=_last_used)
        told = below[:BRANCHES] if level < LEVELS and self._left > 0 else []
        self._left -= len(told)
        return CachedPrefix(
            tokens=len(tokens),
            blocks=blocks,
            sequences=sequences,
            text="" if self._decode is None else self._decode(tokens[:CHARACTERS])[:CHARACTERS],
            branches=tuple(self._prefix(child, level + 1) for child in told),
            more=len(below) - len(told),
        )


def _resident(node: Node) -> list[Node]:
    return [child for child in node.exact.values() if child.block]


def _last_used(node: Node) -> int:
    return -node.used
