"""The prefix tree and the block pool keep their books, whatever order things come in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.prefix_node import common
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.residents import MOST

TOTAL = 24


class Books(RuleBasedStateMachine):
    """Sequences that match, compute, insert, drop; a model of what each block holds as the witness."""

    @initialize(seed=st.integers(0, 999))
    def begin(self, seed):
        self.random = random.Random(seed)
        self.pool = BlockPool(TOTAL)
        self.tree = PrefixTree(self.pool)
        self.content: dict[int, dict[int, tuple]] = {}  # block → offset → the whole prefix that was computed there
        self.names: dict[tuple, int] = {}  # of the prefixes that a prompt marked
        self.told: set[int] = set()  # those that are resident, as far as the tree has told
        self.live: list[tuple[str, list[int], list[int]]] = []  # namespace, tokens, blocks

    def _take(self, count):
        if self.pool.available < count:
            return None
        if self.pool.free < count:
            self.tree.evict(count - self.pool.free, 0)
        taken = self.pool.take(count)
        for block in taken:
            self.content[block] = {}
        return taken

    @rule(length=st.integers(1, 70), namespace=st.sampled_from("ab"), fork=st.integers(0, 70))
    def admit(self, length, namespace, fork):
        tokens = [0] * min(fork, length) + [self.random.randrange(2) for _ in range(length - fork)]
        match = self.tree.match(namespace, tokens, length - 1)
        assert match.tokens <= length - 1
        held = [*match.blocks, *([match.partial.block] if match.partial else [])]
        for n in range(match.tokens):  # a hit is a hit to the token
            where = held[n // BLOCK_SIZE]
            assert self.content[where][n % BLOCK_SIZE] == (namespace, *tokens[: n + 1])
        for block in held:
            self.pool.hold(block)
        blocks = self._take(-(-length // BLOCK_SIZE) - len(match.blocks))
        if match.partial and blocks is not None:
            kept = {o: p for o, p in self.content[match.partial.block].items() if o < match.partial.tokens}
            self.content[blocks[0]] = dict(kept)
        if blocks is None:
            self.pool.drop(held)
            return
        if match.partial:
            self.pool.drop([match.partial.block])
        table = [*match.blocks, *blocks]
        for n in range(match.tokens, length):
            self._write(namespace, tokens, table, n)
        self.live.append((namespace, tokens, table))
        if self.random.random() < 0.7:
            self.tree.insert(namespace, tokens, table, tail=True, marks=self._marks(namespace, tokens))

    def _marks(self, namespace, tokens):
        """Two of its prefixes, by the block that has their last token."""
        marks = {}
        for end in {self.random.randint(1, len(tokens)), len(tokens)}:
            name = self.names.setdefault((namespace, *tokens[:end]), len(self.names))
            marks[(end - 1) // BLOCK_SIZE] = (*marks.get((end - 1) // BLOCK_SIZE, ()), name)
        return marks

    @rule()
    def tell(self):
        change = self.tree.residents.take()
        if change is not None:
            added, evicted = set(change.added), set(change.evicted)
            assert not added & evicted
            assert not added & self.told
            assert evicted <= self.told  # nothing is told twice
            self.told = (self.told | added) - evicted

    @invariant()
    def what_is_told_is_what_is_there(self):
        if hasattr(self, "pool"):
            self.tell()
            nodes = [self.tree._nodes[block] for block in self.tree.blocks()]
            assert self.told == {name for node in nodes for name in node.names}
            assert all(len(node.names) <= MOST for node in nodes)

    def _write(self, namespace, tokens, table, n):
        self.content[table[n // BLOCK_SIZE]][n % BLOCK_SIZE] = (namespace, *tokens[: n + 1])

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 99), count=st.integers(1, 20))
    def decode(self, pick, count):
        namespace, tokens, table = self.live[pick % len(self.live)]
        for _ in range(count):
            if len(tokens) == len(table) * BLOCK_SIZE:
                more = self._take(1)
                if more is None:
                    return
                table += more
            tokens.append(self.random.randrange(2))
            self._write(namespace, tokens, table, len(tokens) - 1)

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 99), keep=st.booleans(), tail=st.booleans())
    def end(self, pick, keep, tail):
        namespace, tokens, table = self.live.pop(pick % len(self.live))
        if keep:
            marks = self._marks(namespace, tokens)
            self.tree.insert(namespace, tokens, table, tail=tail, marks=marks)
            for index, names in marks.items():
                if (index + 1) * BLOCK_SIZE > len(tokens):
                    continue  # a tail that another one covers, or none
                node = self.tree._nodes[table[index]]
                assert set(names) <= set(node.names) or len(node.names) == MOST
            assert self.tree.match(namespace, tokens, len(tokens)).tokens >= len(tokens) - (0 if tail else BLOCK_SIZE)
        self.pool.drop(table)

    @rule(count=st.integers(1, TOTAL))
    def evict(self, count):
        free, cached = self.pool.free, self.pool.cached
        freed = self.tree.evict(count, 0)
        assert freed == min(count, cached)  # whatever nobody holds can be had
        assert self.pool.free == free + freed

    @invariant()
    def books_balance(self):
        if not hasattr(self, "pool"):
            return
        held = {block for _, _, table in self.live for block in table}
        resident = set(self.tree.blocks())
        free = set(self.pool._free)
        assert len(free) == len(self.pool._free)
        assert not free & (held | resident)
        assert len(free | held | resident) == TOTAL
        assert 0 not in free | held | resident
        assert self.pool.used == len(held)
        assert self.pool.cached == len(resident - held)
        for block in range(1, TOTAL + 1):
            assert self.pool._holders[block] == sum(table.count(block) for _, _, table in self.live)

    @invariant()
    def live_sequences_keep_what_they_computed(self):
        for namespace, tokens, table in getattr(self, "live", ()):
            for n in range(len(tokens)):
                assert self.content[table[n // BLOCK_SIZE]][n % BLOCK_SIZE] == (namespace, *tokens[: n + 1])


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common(left, right):
    expected = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    assert common(left, right) == (min(len(left), len(right)) if expected is None else expected)


def filled(pool, tree, tokens):
    table = pool.take(-(-len(tokens) // BLOCK_SIZE))
    tree.insert("", tokens, table, tail=True)
    return table


def test_least_recently_used_goes_first():
    pool = BlockPool(8)
    tree = PrefixTree(pool)
    old, new = [1] * 32, [2] * 32
    for tokens in (old, new):
        pool.drop(filled(pool, tree, tokens))
    tree.match("", old, 32)
    assert tree.evict(2, 0) == 2
    assert tree.match("", new, 32).tokens == 0
    assert tree.match("", old, 32).tokens == 32
    assert tree.evict(1, 0) == 1  # a leaf goes before what leads to it
    assert tree.match("", old, 32).tokens == 16


def test_held_blocks_are_not_evicted():
    pool = BlockPool(8)
    tree = PrefixTree(pool)
    table = filled(pool, tree, [1] * 40)
    assert tree.evict(8, 0) == 0
    pool.drop(table)
    assert tree.evict(8, 0) == 3
    assert pool.free == 8


def test_equal_tokens_use_one_block():
    pool = BlockPool(8)
    tree = PrefixTree(pool)
    first = filled(pool, tree, [1] * 32)
    second = filled(pool, tree, [1] * 32)
    assert second == first
    assert pool.used == 2


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31])
def test_a_tip_grows(length):
    pool = BlockPool(8)
    tree = PrefixTree(pool)
    tokens = list(range(40))
    table = pool.take(3)
    tree.insert("", tokens[:length], table, tail=True)
    assert tree.match("", tokens, 39).tokens == length
    tree.insert("", tokens, table, tail=True)
    assert tree.match("", tokens, 39).tokens == 39
    assert len(list(tree.blocks())) == 3
