"""Which blocks a sequence's tokens lie in: shared ones from the prefix tree, its own from the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Set

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy, BlockPool
from semantic_parrot.core.engine.offload import NO_MOVES, Moves, Offload
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engine.prefix_tree import Match, PrefixTree
from semantic_parrot.core.engine.retention import Uses
from semantic_parrot.core.engine.salted_tree import SaltedTree
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engines.protocol import PrefixChange


class BlockTables:
    """Owned by the planner. `tree` None: nothing is shared. `offload`: the tree's. `now`: time.monotonic() of the step
    that is planned."""

    def __init__(self, pool: BlockPool, tree: PrefixTree | None, offload: Offload | None) -> None:
        self.now = 0.0
        self._pool = pool
        self._tree = None if tree is None else SaltedTree(pool, tree)
        self._offload = offload

    @property
    def shares(self) -> bool:
        return self._tree is not None

    def match(self, s: Sequence) -> Match:
        """What is resident of its tokens."""
        if self._tree is None or s.alone:
            return Match((), None)
        return self._tree.match(s, len(s.tokens) - 1)  # the last one's logits are wanted in any case

    def short(self, s: Sequence, match: Match, reserve: int) -> int:
        """How many blocks there are too few of to place `s`, with one token more, and keep `reserve` available; 0 or
        less: it fits."""
        idle = sum(not self._pool.held(block) for block in match.blocks)
        return _blocks(len(s.tokens) + 1) - len(match.blocks) + idle + reserve - self._pool.available

    def gained(self, s: Sequence, wanted: Set[int], drops: Counter[int]) -> int:
        """How many blocks more would be available if `s` were stopped too. `drops` counts the holders that each block
        has lost so far; those of `wanted` are no gain."""
        gained = 0
        for block in s.blocks:
            drops[block] += 1
            gained += drops[block] == self._pool.holders(block) and block not in wanted
        return gained

    def make_room(self, s: Sequence, match: Match) -> bool:
        """Evict for `s`, for which there is room, as many blocks as a step may; False: the rest in the next step."""
        if self._offload is None or self._tree is None:
            return True
        for block in match.blocks:
            self._pool.hold(block)
        missing = _blocks(len(s.tokens)) - len(match.blocks) - self._pool.free
        self._tree.evict(min(missing, self._offload.room), self.now)
        self._pool.drop(match.blocks)
        return missing <= 0 or self._pool.free >= _blocks(len(s.tokens)) - len(match.blocks)

    def place(self, s: Sequence, match: Match) -> list[BlockCopy]:
        """Give `s` the blocks for its tokens, of which there are enough; those of `match` are shared."""
        for block in match.blocks:
            self._pool.hold(block)
        s.blocks = [*match.blocks]
        s.computed = match.tokens
        self._extend(s, _blocks(len(s.tokens)) - len(s.blocks))
        if match.partial is None:
            return []
        # Should it be evicted right now, what it holds is copied still: a step begins with its copies.
        return [BlockCopy(match.partial.block, s.blocks[len(match.blocks)], match.partial.tokens)]

    def restore(self, s: Sequence) -> bool:
        """Copy back what the second tier has of a prefill; False: some of it in the next step, for which `s` waits."""
        if self._tree is None or s.alone:
            return True
        found = self._tree.restore(s, len(s.tokens) - 1)
        s.computed += found.tokens
        if not s.begun:
            s.cached = s.computed
        return not found.more

    def moves(self) -> Moves:
        """The copies between the tiers for the step that has been planned."""
        return NO_MOVES if self._offload is None else self._offload.moves()

    def grow(self, s: Sequence) -> bool:
        """Room for the next token; False if there is none."""
        if s.computed < len(s.blocks) * BLOCK_SIZE:
            return True
        if not self._pool.available:
            return False
        self._extend(s, 1)
        return True

    def share(self, s: Sequence) -> None:
        """What is computed of a prompt may be read by others from now on; its last block, while it grows, may not."""
        if self._tree is not None and not s.alone:
            self._tree.insert(s, tail=s.pending == 0)

    def release(self, s: Sequence, uses: Uses | None) -> None:
        """`s` holds nothing any more; what it computed stays resident for as long as there is room."""
        if self._tree is not None and s.computed and not s.alone:
            self._tree.insert(s, tail=True, uses=uses)
        if not s.finite:
            self._pool.doubt(s.blocks)
        elif s.followed:  # nobody will look at the logits of what is written there now
            self._pool.doubt(s.blocks[s.computed // BLOCK_SIZE :])
        self._pool.drop(s.blocks)
        s.blocks, s.computed, s.finite, s.followed = [], 0, False, False

    def publish(self, s: Sequence) -> bool:
        """All may read what `s`, which has the salt PUBLIC, has computed, and it is kept for ever; False: that is not
        all of it."""
        return self._tree is not None and self._tree.publish(s.tokens, long=s.long)

    @property
    def public(self) -> Collection[int]:
        """The blocks that all may read."""
        return () if self._tree is None else self._tree.public

    def changed(self) -> PrefixChange | None:
        """See SaltedTree."""
        return None if self._tree is None else self._tree.changed()

    def roots(self) -> Iterator[Node]:
        """Of the prefix tree."""
        return iter(()) if self._tree is None else self._tree.roots()

    def forget_prefixes(self) -> None:
        """Drop what is resident and held by no sequence."""
        if self._tree is not None:
            self._tree.forget(self.now)

    def to_clear(self, copies: Iterable[BlockCopy]) -> tuple[int, ...]:
        """The blocks taken for this step that may hold what is no number, and are not copied over."""
        return tuple(set(self._pool.to_clear()).difference(copy.target for copy in copies))

    def _extend(self, s: Sequence, count: int) -> None:
        if self._pool.free < count and self._tree is not None:
            # A few more than needed: an eviction has a fixed cost.
            self._tree.evict(max(count - self._pool.free, 8), self.now)
        s.blocks = s.blocks + self._pool.take(count)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)
