"""The prefix tree as it is told: every resident block stands in it once, in the order in which prefixes branch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.outline import BRANCHES, LEVELS, Outline
from semantic_parrot.core.engine.prefix_tree import PrefixTree


def tree_of(texts, *, held=False):
    """A tree in which the token lists `texts` are resident, the last one used last."""
    pool = BlockPool(400)
    tree = PrefixTree(pool)
    for tokens in texts:
        blocks = pool.take(-(-len(tokens) // BLOCK_SIZE))
        tree.insert("a", tokens, blocks, tail=True)
        if not held:
            pool.drop(blocks)
    return pool, tree


def letters(tokens):
    return "".join(map(chr, tokens))


def test_what_two_prompts_share_is_told_once_and_then_where_they_part():
    shared, first, second = [97] * 32, [98] * 16, [99] * 20
    pool, tree = tree_of([shared + first, shared + second], held=True)
    (top,) = Outline(pool, letters).of(tree.roots())
    assert (top.tokens, top.blocks, top.sequences, top.text) == (32, 2, 2, "a" * 32)
    assert [(b.tokens, b.blocks, b.sequences, b.text) for b in top.branches] == [
        (20, 2, 1, "c" * 20), (16, 1, 1, "b" * 16)
    ]  # fmt: skip
    (silent,) = Outline(pool, None).of(tree.roots())
    assert (silent.text, silent.branches[0].text) == ("", "")


def _sum(prefixes, what):
    return sum(what(p) + _sum(p.branches, what) for p in prefixes)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=12))
def test_every_resident_block_stands_in_it_once_unless_it_says_that_there_is_more(runs):
    texts = [[65 + i for i in run for _ in range(BLOCK_SIZE)] for run in runs]
    pool, tree = tree_of(texts)
    found = Outline(pool, None).of(tree.roots())
    assert _sum(found, lambda p: p.sequences) == 0
    if not _sum(found, lambda p: p.more):
        assert _sum(found, lambda p: p.blocks) == pool.cached
        assert _sum(found, lambda p: p.tokens) == pool.cached * BLOCK_SIZE


def test_it_is_bounded():
    wide = [[i] * BLOCK_SIZE for i in range(BRANCHES + 5)]
    pool, tree = tree_of([[99] * BLOCK_SIZE + text for text in wide])
    (top,) = Outline(pool, None).of(tree.roots())
    assert (len(top.branches), top.more) == (BRANCHES, 5)
    assert top.branches[0].tokens == BLOCK_SIZE
    deep = [[7] * BLOCK_SIZE * n + [8] * BLOCK_SIZE for n in range(LEVELS + 4)]
    pool, tree = tree_of(deep)
    level, prefixes = 0, Outline(pool, None).of(tree.roots())
    while prefixes:
        level, prefixes = level + 1, max((p.branches for p in prefixes), key=len)
    assert level == LEVELS
