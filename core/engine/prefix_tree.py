"""The prefix tree: a radix tree over tokens whose edges are KV blocks.

Each node is one block, and its edge the tokens in it: a whole block's, or fewer at the tip of what was computed.
Sharing is exact to the token. Whole blocks on the way are shared as they are; where the way ends inside a block,
the part that agrees is reused by copying that block (its holder may go on writing behind the part we read).

A sequence that holds a node's block holds its ancestors' too: `insert` puts the tree's block in the sequence's
table wherever both have one for the same tokens. Only leaves that no sequence holds are evicted, in the order that
`retention.Candidates` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.retention import UNKNOWN, Candidates, Key, Uses


@dataclass(frozen=True, slots=True)
class Partial:
    """The first `tokens` tokens of `block` agree; to be copied."""

    block: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Match:
    """What is resident of a token list: `blocks` whole, then perhaps a part of one more. `tokens` in all."""

    blocks: tuple[int, ...]
    partial: Partial | None

    @property
    def tokens(self) -> int:
        return len(self.blocks) * BLOCK_SIZE + (self.partial.tokens if self.partial else 0)


@dataclass(slots=True, eq=False)
class _Node:
    tokens: tuple[int, ...]
    block: int
    parent: _Node | None
    used: int = 0
    next_use: float = UNKNOWN
    told: float = -inf  # when that was said
    queued: Key | None = None
    exact: dict[tuple[int, ...], _Node] = field(default_factory=dict)
    by_first: dict[int, list[_Node]] = field(default_factory=dict)

    def add(self, child: _Node) -> None:
        self.exact[child.tokens] = child
        self.by_first.setdefault(child.tokens[0], []).append(child)

    def remove(self, child: _Node) -> None:
        del self.exact[child.tokens]
        siblings = self.by_first[child.tokens[0]]
        siblings.remove(child)
        if not siblings:
            del self.by_first[child.tokens[0]]


class PrefixTree:
    """Owned by the engine's loop, which also owns `pool`.

    `namespace` keeps apart what must not be shared though the tokens are equal, such as KV computed with LongRoPE's
    short factors and with its long ones.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._roots: dict[Hashable, _Node] = {}
        self._nodes: dict[int, _Node] = {}  # by block
        self._clock = itertools.count(1)
        self._leaves: Candidates[_Node] = Candidates()  # without children or holders; checked when popped

    def match(self, namespace: Hashable, tokens: Sequence[int], limit: int) -> Match:
        """The longest resident prefix of `tokens`, of at most `limit` tokens. The caller holds what it uses."""
        now = next(self._clock)
        node = self._roots.get(namespace)
        blocks: list[int] = []
        if node is None:
            return Match((), None)
        for start in range(0, limit - BLOCK_SIZE + 1, BLOCK_SIZE):
            child = node.exact.get(tuple(tokens[start : start + BLOCK_SIZE]))
            if child is None:
                break
            child.used = now
            blocks.append(child.block)
            node = child
        rest = tuple(tokens[len(blocks) * BLOCK_SIZE : min(limit, (len(blocks) + 1) * BLOCK_SIZE)])
        best, partial = 0, None
        for child in node.by_first.get(rest[0], ()) if rest else ():
            agree = common(child.tokens, rest)
            if agree > best:
                best, partial = agree, Partial(child.block, agree)
        if partial is not None:
            self._nodes[partial.block].used = now
        return Match(tuple(blocks), partial)

    def insert(
        self, namespace: Hashable, tokens: Sequence[int], blocks: list[int], *, tail: bool, uses: Uses | None = None
    ) -> None:
        """Make computed `tokens`, whose KV stands in `blocks`, resident; with `tail`, the last, unfilled block too.
        `uses`: when they are read next, if that is known; what was said last counts.

        Mutates `blocks`: where the tree has a block for the same tokens already, the sequence goes over to it.
        """
        now = next(self._clock)
        node = self._roots.get(namespace)
        if node is None:
            node = self._roots[namespace] = _Node((), 0, None)
        for index, start in enumerate(range(0, len(tokens), BLOCK_SIZE)):
            edge = tuple(tokens[start : start + BLOCK_SIZE])
            if len(edge) < BLOCK_SIZE and not tail:
                return
            child = node.exact.get(edge)
            if child is None:
                child = self._grow(node, edge, blocks[index])
            elif child.block != blocks[index] and len(edge) == BLOCK_SIZE:
                self._pool.hold(child.block)
                self._pool.drop((blocks[index],))
                blocks[index] = child.block
            child.used = now
            if uses is not None and uses.told >= child.told:
                child.next_use, child.told = uses.at(start + len(edge)), uses.told
            node = child

    def evict(self, count: int, now: float) -> int:
        """Free up to `count` blocks; returns how many were freed. `now`: time.monotonic()."""
        for block in self._pool.idle:
            self._candidate(self._nodes[block], now)
        self._pool.idle.clear()
        freed = 0
        while freed < count and (node := self._leaves.pop(now)) is not None:
            # What has children or a holder comes back as a candidate when it loses the last of them.
            if self._nodes.get(node.block) is not node or node.exact or self._pool.held(node.block):
                continue
            self._candidate(self._remove(node), now)
            freed += 1
        return freed

    def blocks(self) -> Iterator[int]:
        """Every resident block."""
        return iter(self._nodes)

    def _grow(self, node: _Node, edge: tuple[int, ...], block: int) -> _Node:
        for sibling in node.by_first.get(edge[0], ()):
            agree = common(sibling.tokens, edge)
            if agree == len(edge):
                return sibling  # a tail that a longer one covers
            if agree == len(sibling.tokens):  # a tip that has grown since
                node.remove(sibling)
                if sibling.block != block:
                    del self._nodes[sibling.block]
                    self._pool.forget(sibling.block)
                    self._pool.keep(block)
                    self._nodes[block] = sibling
                sibling.tokens, sibling.block = edge, block
                node.add(sibling)
                return sibling
        child = _Node(edge, block, node)
        node.add(child)
        self._nodes[block] = child
        self._pool.keep(block)
        return child

    def _remove(self, node: _Node) -> _Node:
        """Evict `node`; returns its parent."""
        assert node.parent is not None
        node.parent.remove(node)
        del self._nodes[node.block]
        self._pool.forget(node.block)
        return node.parent

    def _candidate(self, node: _Node, now: float) -> None:
        """`node` may be a leaf now that nobody holds."""
        if node.parent is not None and not node.exact and not self._pool.held(node.block):
            self._leaves.push(node, now)


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
