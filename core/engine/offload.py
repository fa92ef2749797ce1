"""The second tier of the prefix cache: which evicted blocks stand in which of its slots.

A block that is evicted leaves its node in the tree, with a slot instead of a block; a prompt that matches it later has
it copied back instead of computed. What was read for the last time gets no slot. When there are no more, what
`retention` says goes first, goes. Here are the books only: `offload_store` has the slots themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engine.retention import NEVER, Candidates, key_of


class Storage(Protocol):
    """Where the slots are."""

    def extend(self) -> range:
        """Slots that may be used from now on besides; empty if there are no more. Does not raise."""
        ...


class Moves(NamedTuple):
    """Copies between the two tiers in a step: `out`, from blocks to slots, before anything else of it; `back`, from
    slots to blocks, when all else is done that comes before the forward."""

    out: tuple[BlockCopy, ...] = ()
    back: tuple[BlockCopy, ...] = ()


NO_MOVES = Moves()


class Offload:
    """Owned by the engine's loop, as the tree is. `per_step`: blocks that may be copied in a step in each direction, so
    that none takes long. `restored`: blocks that were copied back."""

    def __init__(self, storage: Storage, per_step: int) -> None:
        self.per_step = per_step
        self.restored = 0
        self.dropped: Callable[[Node], None] = lambda _: None  # told of each node that leaves the tree from here
        self._storage = storage
        self._free: list[int] = []
        self._nodes: dict[int, Node] = {}  # by slot
        self._leaves: Candidates[Node] = Candidates()  # those of them without children
        self._out: dict[int, int] = {}  # slot → block
        self._back: list[BlockCopy] = []

    @property
    def used(self) -> int:
        return len(self._nodes)

    @property
    def room(self) -> int:
        """Blocks that may leave the cache in this step."""
        return self.per_step - len(self._out)

    @property
    def left(self) -> int:
        """Blocks that may come back in this step."""
        return self.per_step - len(self._back)

    def take(self, node: Node, block: int, now: float) -> bool:
        """Give `node`, which is evicted from `block`, a slot; False if it isn't worth one."""
        if node.next_use == NEVER and not node.exact:
            return False
        slot = self._slot(node, now)
        if slot is None:
            return False
        node.slot = slot
        self._nodes[slot] = node
        self._out[slot] = block
        if not node.exact:
            self._leaves.push(node, now)
        return True

    def bring_back(self, node: Node, block: int, tokens: int) -> None:
        """Copy the first `tokens` of what `node` has here to `block`; as a whole, it leaves."""
        assert node.slot is not None
        self._back.append(BlockCopy(node.slot, block, tokens))
        self.restored += 1
        if tokens == BLOCK_SIZE:
            # Nothing takes the slot before it is read: in a step, what comes back is planned last.
            self.release(node)

    def release(self, node: Node) -> None:
        """`node` has a block again, or is in the tree no more."""
        if node.slot is not None:
            del self._nodes[node.slot]
            self._free.append(node.slot)
            self._leaves.discard(node)
            node.slot = None

    def forget(self) -> None:
        """Nothing stands here any more."""
        for node in list(self._nodes.values()):
            assert node.parent is not None
            node.parent.remove(node)
            self.dropped(node)
            self.release(node)

    def moves(self) -> Moves:
        """What is to be copied in the step that has been planned."""
        out = tuple(BlockCopy(block, slot, BLOCK_SIZE) for slot, block in self._out.items())
        found = Moves(out, tuple(self._back))
        self._out, self._back = {}, []
        return found

    def _slot(self, node: Node, now: float) -> int | None:
        """A free slot for `node`, if need be that of what goes before it."""
        if not self._free:
            self._free += reversed(self._storage.extend())
        if not self._free:
            first = self._leaves.pop(now)
            if first is None:
                return None
            if key_of(first) > key_of(node):
                self._leaves.push(first, now)
                return None
            parent = first.parent
            assert parent is not None
            parent.remove(first)
            self.dropped(first)
            self.release(first)
            if parent.slot is not None and not parent.exact:
                self._leaves.push(parent, now)
        return self._free.pop()
