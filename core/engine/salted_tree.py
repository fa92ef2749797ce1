"""The prefix tree as sequences see it: what one has computed, those of its salt may read, and nobody else.

So no answer comes sooner because of what another tenant asked. What all may read is public: prefixes that whoever runs
the server has named, in whole blocks, filled before anything else and kept for ever. A sequence that begins with one
reads it as it is; its own part of the tree, which is its salt's, begins after it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.prefix_node import Node
from semantic_parrot.core.engine.prefix_tree import Match, PrefixTree, Restored
from semantic_parrot.core.engine.residents import marks_of
from semantic_parrot.core.engine.retention import Uses
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engines.protocol import PrefixChange

#: The salt of what is public. Those of tenants are hexadecimal.
PUBLIC = "public"


class SaltedTree:
    """Owned by the block tables. `public`: the blocks that are kept for ever."""

    def __init__(self, pool: BlockPool, tree: PrefixTree) -> None:
        self.public: dict[int, None] = {}
        self._pool = pool
        self._tree = tree

    def match(self, s: Sequence, limit: int) -> Match:
        """What `s` may read of its tokens, at most `limit` of them."""
        public = self._public(s)
        skip = len(public) * BLOCK_SIZE
        found = self._tree.match(self._place(s), s.tokens[skip:] if skip else s.tokens, limit - skip)
        return replace(found, blocks=(*public, *found.blocks)) if skip else found

    def restore(self, s: Sequence, limit: int) -> Restored:
        """See `PrefixTree.restore`."""
        skip = len(self._public(s)) * BLOCK_SIZE
        own, tokens = s.blocks[skip // BLOCK_SIZE :], s.tokens[skip:] if skip else s.tokens
        found = self._tree.restore(self._place(s), tokens, own, s.computed - skip, limit - skip)
        s.blocks[skip // BLOCK_SIZE :] = own
        return found

    def insert(self, s: Sequence, *, tail: bool, uses: Uses | None = None) -> None:
        """What `s` has computed may be read. See `PrefixTree.insert`."""
        skip = len(self._public(s)) * BLOCK_SIZE
        own = s.blocks[skip // BLOCK_SIZE :]
        if skip and uses is not None:
            uses = replace(uses, ends=tuple(end - skip for end in uses.ends))
        if s.marks is None:  # those of a public prefix are not told: it is everywhere
            marks, first = marks_of(s.directions.marks, s.prompt), skip // BLOCK_SIZE
            s.marks = {block - first: names for block, names in marks.items() if block >= first}
        self._tree.insert(self._place(s), s.tokens[skip : s.computed], own, tail=tail, uses=uses, marks=s.marks)
        s.blocks[skip // BLOCK_SIZE :] = own

    def changed(self) -> PrefixChange | None:
        """What is to be told of the prefixes that have marks."""
        return self._tree.residents.take()

    def roots(self) -> Iterator[Node]:
        """Of all salts together."""
        return self._tree.roots()

    def evict(self, count: int, now: float) -> int:
        return self._tree.evict(count, now)

    def forget(self, now: float) -> None:
        self._tree.forget(now)

    def publish(self, tokens: list[int], *, long: bool) -> bool:
        """Keep for ever what a sequence with the salt PUBLIC has computed: all of `tokens`, in whole blocks; False if
        not all of them are resident."""
        found = self._tree.match((long, PUBLIC, 0), tokens, len(tokens)).blocks
        for block in found:
            if block not in self.public:
                self.public[block] = None
                self._pool.hold(block)
        return len(found) * BLOCK_SIZE == len(tokens)

    def _public(self, s: Sequence) -> tuple[int, ...]:
        """The blocks that `s` begins with: the same ones for as long as it lives."""
        if s.public is None:
            s.public = ()
            if self.public and s.directions.salt != PUBLIC:
                s.public = self._tree.match((s.long, PUBLIC, 0), s.tokens, s.prompt - 1).blocks
        return s.public

    def _place(self, s: Sequence) -> Hashable:
        """What is computed with LongRoPE's short factors and with its long ones is not the same either."""
        return s.long, s.directions.salt, s.public[-1] if s.public else 0
