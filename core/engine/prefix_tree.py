"""The prefix tree: a radix tree over tokens whose edges are KV blocks.

Each node is one block, and its edge the tokens in it: a whole block's, or fewer at the tip of what was computed.
Sharing is exact to the token. Whole blocks on the way are shared as they are; where the way ends inside a block,
the part that agrees is reused by copying that block (its holder may go on writing behind the part we read).

A sequence that holds a node's block holds its ancestors' too: `insert` puts the tree's block in the sequence's
table wherever both have one for the same tokens. Only nodes that no sequence holds, and below which nothing is
resident, are evicted, in the order that `retention.Candidates` says: to a second tier (`offload`), where there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.offload import Offload
from semantic_parrot.core.engine.prefix_node import Node, common
from semantic_parrot.core.engine.residents import Marks, Residents
from semantic_parrot.core.engine.retention import Candidates, Uses

NO_MARKS: Marks = {}


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


class Restored(NamedTuple):
    """`tokens` came back; `more` do in the next step."""

    tokens: int
    more: bool


class PrefixTree:
    """Owned by the engine's loop, which also owns `pool`.

    `namespace` keeps apart what must not be shared though the tokens are equal, such as KV computed with LongRoPE's
    short factors and with its long ones. `offload` None: what is evicted is gone.
    """

    def __init__(self, pool: BlockPool, offload: Offload | None = None) -> None:
        self._pool = pool
        self._offload = offload
        self._roots: dict[Hashable, Node] = {}
        self._nodes: dict[int, Node] = {}  # by block
        self._clock = itertools.count(1)
        self.residents = Residents()
        if offload is not None:
            offload.dropped = self.residents.gone
        self._leaves: Candidates[Node] = Candidates()  # no resident children, no holders; checked when popped

    def match(self, namespace: Hashable, tokens: Sequence[int], limit: int) -> Match:
        """The longest resident prefix of `tokens`, of at most `limit` tokens. The caller holds what it uses.

        Where the second tier has more of them than the block that would be copied, there is no `partial`."""
        now = next(self._clock)
        node = self._roots.get(namespace)
        blocks: list[int] = []
        if node is None:
            return Match((), None)
        for start in range(0, limit - BLOCK_SIZE + 1, BLOCK_SIZE):
            child = node.exact.get(tuple(tokens[start : start + BLOCK_SIZE]))
            if child is None or not child.block:
                break
            child.used = now
            blocks.append(child.block)
            node = child
        agree, best = node.best(tuple(tokens[len(blocks) * BLOCK_SIZE : min(limit, (len(blocks) + 1) * BLOCK_SIZE)]))
        if best is None or not best.block:
            return Match(tuple(blocks), None)
        best.used = now
        return Match(tuple(blocks), Partial(best.block, agree))

    def restore(
        self, namespace: Hashable, tokens: Sequence[int], blocks: list[int], computed: int, limit: int
    ) -> Restored:
        """Bring back what the second tier has of `tokens`, up to `limit` of them, behind the `computed` ones that stand
        in `blocks` and are resident, into the blocks that follow these.

        Mutates `blocks`: where one is resident by now for the same tokens, the sequence goes over to it.
        """
        offload, node = self._offload, self._roots.get(namespace)
        if offload is None or not offload.used or node is None or computed % BLOCK_SIZE:
            return Restored(0, False)
        now = next(self._clock)
        for start in range(0, computed, BLOCK_SIZE):
            node = node.exact[tuple(tokens[start : start + BLOCK_SIZE])]
        end = computed
        while end + BLOCK_SIZE <= limit:
            child = node.exact.get(tuple(tokens[end : end + BLOCK_SIZE]))
            if child is None:
                break
            if child.block:
                self._share(child, blocks, end // BLOCK_SIZE)
            elif offload.left:
                offload.bring_back(child, blocks[end // BLOCK_SIZE], BLOCK_SIZE)
                self._settle(child, blocks[end // BLOCK_SIZE])
            else:
                return Restored(end - computed, True)
            child.used = now
            node = child
            end += BLOCK_SIZE
        agree, best = node.best(tuple(tokens[end : min(limit, end + BLOCK_SIZE)]))
        if best is not None and best.slot is not None:
            if not offload.left:
                return Restored(end - computed, True)
            offload.bring_back(best, blocks[end // BLOCK_SIZE], agree)
            best.used = now
            end += agree
        return Restored(end - computed, False)

    def insert(
        self,
        namespace: Hashable,
        tokens: Sequence[int],
        blocks: list[int],
        *,
        tail: bool,
        uses: Uses | None = None,
        marks: Marks = NO_MARKS,
    ) -> None:
        """Make computed `tokens`, whose KV stands in `blocks`, resident; with `tail`, the last, unfilled block too.
        `uses`: when they are read next, if that is known; what was said last counts. `marks`: see `residents`.

        Mutates `blocks`: where the tree has a block for the same tokens already, the sequence goes over to it.
        """
        now = next(self._clock)
        node = self._roots.get(namespace)
        if node is None:
            node = self._roots[namespace] = Node((), None)
        for index, start in enumerate(range(0, len(tokens), BLOCK_SIZE)):
            edge = tuple(tokens[start : start + BLOCK_SIZE])
            if len(edge) < BLOCK_SIZE and not tail:
                return
            child = node.exact.get(edge)
            if child is None:
                child = self._grow(node, edge, blocks[index])
            elif not child.block:  # it was computed anew
                self._release(child)
                self._settle(child, blocks[index])
            elif len(edge) == BLOCK_SIZE:
                self._share(child, blocks, index)
            child.used = now
            if uses is not None and uses.told >= child.told:
                child.next_use, child.told = uses.at(start + len(edge)), uses.told
            if index in marks:
                self.residents.came(child, marks[index])
            node = child

    def evict(self, count: int, now: float) -> int:
        """Free up to `count` blocks; returns how many were freed. `now`: time.monotonic()."""
        return self._evict(count, now, self._offload)

    def forget(self, now: float) -> None:
        """Drop whatever no sequence holds, the second tier's included."""
        if self._offload is not None:
            self._offload.forget()
        self._evict(self._pool.total, now, None)

    def roots(self) -> Iterator[Node]:
        """One for each namespace. Whoever reads them changes nothing."""
        return iter(self._roots.values())

    def blocks(self) -> Iterator[int]:
        """Every resident block."""
        return iter(self._nodes)

    def _evict(self, count: int, now: float, offload: Offload | None) -> int:
        for block in self._pool.idle:
            self._candidate(self._nodes[block], now)
        self._pool.idle.clear()
        freed = 0
        while freed < count and (node := self._leaves.pop(now)) is not None:
            # What has children or a holder comes back as a candidate when it loses the last of them.
            block, parent = node.block, node.parent
            if self._nodes.get(block) is not node or node.resident or self._pool.held(block):
                continue
            assert parent is not None
            del self._nodes[block]
            self._pool.forget(block)
            node.block = 0
            parent.resident -= 1
            if offload is None or not offload.take(node, block, now):
                parent.remove(node)
                for one in node.below():
                    self.residents.gone(one)
                    self._release(one)
            self._candidate(parent, now)
            freed += 1
        return freed

    def _share(self, node: Node, blocks: list[int], index: int) -> None:
        """A sequence that has a block of its own for a resident node's tokens goes over to the node's."""
        if node.block != blocks[index]:
            self._pool.hold(node.block)
            self._pool.drop((blocks[index],))
            blocks[index] = node.block

    def _settle(self, node: Node, block: int) -> None:
        """`node` has a block from now on: one that a sequence holds."""
        assert node.parent is not None
        assert not node.block
        self._pool.keep(block)
        self._nodes[block] = node
        node.block = block
        node.parent.resident += 1

    def _release(self, node: Node) -> None:
        if self._offload is not None:
            self._offload.release(node)

    def _grow(self, node: Node, edge: tuple[int, ...], block: int) -> Node:
        """A node for `edge`, which `node` has no child for. No child's tokens begin with all of another's."""
        for sibling in node.by_first.get(edge[0], ()):
            agree = common(sibling.tokens, edge)
            if agree == len(edge):
                return sibling  # a tail that a longer one covers
            if agree == len(sibling.tokens):  # a tip that has grown since
                node.remove(sibling)
                sibling.tokens = edge
                node.add(sibling)
                self._move(sibling, block)
                return sibling
        child = Node(edge, node)
        node.add(child)
        self._settle(child, block)
        return child

    def _move(self, node: Node, block: int) -> None:
        """`node` has another block from now on, if it is another."""
        if not node.block:
            self._release(node)
            self._settle(node, block)
        elif node.block != block:
            del self._nodes[node.block]
            self._pool.forget(node.block)
            self._pool.keep(block)
            self._nodes[block] = node
            node.block = block

    def _candidate(self, node: Node, now: float) -> None:
        """`node` may be one that can be evicted."""
        if node.parent is not None and not node.resident and not self._pool.held(node.block):
            self._leaves.push(node, now)
