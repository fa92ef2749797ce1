"""Whether the books of the KV cache balance: who holds which block, what is free, the prefix tree, its second tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.offload import Offload
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engine.prefix_tree import PrefixTree


def check(
    pool: BlockPool, tree: PrefixTree | None, offload: Offload | None, tables: Iterable[List[int]], reserved: int = 0
) -> None:
    found = list(faults(pool, tree, offload, tables, reserved))
    assert not found, found


def faults(
    pool: BlockPool, tree: PrefixTree | None, offload: Offload | None, tables: Iterable[List[int]], reserved: int
) -> Iterator[str]:
    """What is wrong, between two steps. `tables`: the blocks of each live sequence, 0 for one that it let go of.
    `reserved`: slots that the storage has given."""
    holders = Counter(block for table in tables for block in table if block)
    every = set(range(1, pool.total + 1))
    nodes = [node for root in tree._roots.values() for node in root.below() if node.parent] if tree else []
    resident = {node.block: node for node in nodes if node.block}
    yield from _pool(pool, holders, every, set(resident))
    if tree is not None:
        if tree._nodes != resident:
            yield "the tree's blocks are not those of its nodes"
        for root in tree._roots.values():
            if root.block or root.slot is not None:
                yield "a root has a block"
            yield from _children(root)
        for node in nodes:
            yield from _children(node)
            yield from _node(node, holders)
        waiting = {*tree._leaves, *(resident[block] for block in pool.idle if block in resident)}
        for node in nodes:
            if node.block and not holders[node.block] and not node.resident and node not in waiting:
                yield f"block {node.block} will never be evicted"
    yield from _offload(offload, nodes, reserved)


def _pool(pool: BlockPool, holders: Counter[int], every: set[int], resident: set[int]) -> Iterator[str]:
    free = set(pool._free)
    if len(free) != len(pool._free):
        yield "a block is free twice"
    if free & (holders.keys() | resident):
        yield "a free block is in use"
    if every - free - holders.keys() - resident:
        yield "a block is lost"
    if (free | holders.keys() | resident) - every:
        yield "there is no such block"
    if any(pool._holders[block] != holders[block] for block in every):
        yield "holders are miscounted"
    if any(pool._resident[block] != (block in resident) for block in every):
        yield "the pool and the tree differ about what is resident"
    if pool.used != len(holders) or pool.cached != len(resident - holders.keys()):
        yield "used or cached blocks are miscounted"


def _node(node: Node, holders: Counter[int]) -> Iterator[str]:
    parent = node.parent
    assert parent is not None
    if parent.exact.get(node.tokens) is not node or node not in parent.by_first.get(node.tokens[0], ()):
        yield "a node is not where its parent looks for it"
    if bool(node.block) == (node.slot is not None):
        yield "a node is in both tiers, or in none"
    if node.block and parent.parent and not parent.block:
        yield "a resident node is below one that is not"
    if node.block and holders[node.block] and parent.parent and not holders[parent.block]:
        yield "a sequence holds a block, and not those before it"
    if len(node.tokens) != BLOCK_SIZE and (node.exact or len(node.tokens) > BLOCK_SIZE):
        yield "tokens follow a block that is not full"
    length, siblings = len(node.tokens), parent.by_first.get(node.tokens[0], ())
    if any(one.tokens[:length] == node.tokens for one in siblings if one is not node):
        yield "a node is covered by another"


def _children(node: Node) -> Iterator[str]:
    if sum(map(len, node.by_first.values())) != len(node.exact):
        yield "a node's children are listed differently"
    if node.resident != sum(bool(child.block) for child in node.exact.values()):
        yield "resident children are miscounted"


def _offload(offload: Offload | None, nodes: List[Node], reserved: int) -> Iterator[str]:
    kept = {node.slot: node for node in nodes if node.slot is not None}
    if offload is None:
        if kept:
            yield "slots without a second tier"
        return
    if offload._nodes != kept:
        yield "the slots in use are not those of the tree's nodes"
    if sorted([*offload._free, *offload._nodes]) != list(range(reserved)):
        yield "a slot is lost, or there twice"
    if set(offload._leaves) != {node for node in kept.values() if not node.exact}:
        yield "a slot will never be free, or too early"
    if offload._back:
        yield "something waits to come back"
