"""What the prefix tree evicts first: what was read for the last time, then LRU, then the farthest next use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, answer

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.retention import LATE, NEVER, UNKNOWN, Candidates, Uses, key_of
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.protocol import UNSAID, Keep
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template

NOW = 1000.0


def resident(*uses):
    """A tree in which a block each was read in this order, with what was said of it."""
    pool = BlockPool(len(uses))
    tree = PrefixTree(pool)
    for n, use in enumerate(uses):
        table = pool.take(1)
        said = None if use is None else Uses(NOW, (), (use,))
        tree.insert("", [n] * BLOCK_SIZE, table, tail=True, uses=said)
        pool.drop(table)
    return tree


def evicted(tree, count, now=NOW):
    """The order in which blocks go."""
    names = []
    for _ in range(count):
        there = {n for n in range(count) if has(tree, n)}
        tree.evict(1, now)
        (gone,) = there - {n for n in range(count) if has(tree, n)}
        names.append(gone)
    return names


def has(tree, n):
    root = tree._roots[""]
    return (n,) * BLOCK_SIZE in root.exact


def test_order():
    tree = resident(NOW + 9, None, NEVER, NOW + 50, None, NEVER, NOW + 1)
    assert evicted(tree, 7) == [2, 5, 1, 4, 3, 0, 6]


def test_of_equal_next_uses_the_last_read_goes_first():
    assert evicted(resident(NOW + 9, NOW + 9, NOW + 9), 3) == [2, 1, 0]


def test_a_next_use_that_did_not_come_is_forgotten():
    tree = resident(NOW + 1, None, NOW + 50)
    assert evicted(tree, 3, NOW + 1 + LATE) == [0, 1, 2]
    queued = resident(NOW + 1, None, NOW + 50)
    queued.evict(0, NOW)  # it is a candidate by now, and known
    assert evicted(queued, 3, NOW + 1 + LATE) == [0, 1, 2]
    assert evicted(resident(UNSAID, None), 2) == [0, 1]


def test_what_was_said_last_counts_whoever_ends_last():
    pool = BlockPool(2)
    tree = PrefixTree(pool)
    tokens = [1] * BLOCK_SIZE
    table = pool.take(1)
    tree.insert("", tokens, table, tail=True, uses=Uses(NOW + 1, (), (NEVER,)))
    tree.insert("", tokens, table, tail=True, uses=Uses(NOW, (), (NOW + 9,)))
    (node,) = tree._nodes.values()
    assert node.next_use == NEVER
    tree.insert("", tokens, table, tail=True)  # who says nothing changes nothing
    assert node.next_use == NEVER


def test_shares_of_a_prompt():
    uses = Uses.of((Keep(0.25, UNSAID), Keep(0.5, NOW), Keep(1.0, None)), 64, NOW)
    assert [uses.at(end) for end in (16, 17, 32, 33, 64, 80)] == [UNSAID, NOW, NOW, NEVER, NEVER, NEVER]
    uses = Uses.of((Keep(1.0, NOW),), 64, NOW)
    assert [uses.at(end) for end in (64, 65)] == [NOW, UNKNOWN]
    assert Uses.of((), 64, NOW) is None


class Node:
    def __init__(self, used, next_use):
        self.used, self.next_use = used, next_use


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["use", "say", "pop", "discard"]), st.floats(0, 60)), max_size=200
    )
)
def test_candidates_go_in_order_however_they_change(events):
    """Each node is pushed again after it changed, as the tree does once nobody holds it any more."""
    candidates, nodes, live, clock = Candidates(), {}, set(), 0
    for n, event, value in events:
        clock += 1
        now = NOW + clock / 4
        node = nodes.setdefault(n, Node(clock, UNKNOWN))
        if event == "pop":
            for other in live:
                if other.next_use + LATE <= now:
                    other.next_use = UNKNOWN
            found = candidates.pop(now)
            assert found is (min(live, key=key_of) if live else None)
            live.discard(found)
            continue
        if event == "discard":
            candidates.discard(node)
            live.discard(node)
            continue
        node.used = clock
        if event == "say":
            node.next_use = now + value if value < 40 else NEVER if value < 50 else UNKNOWN
        candidates.push(node, now)
        live.add(node)
        assert set(candidates) == live
        assert max(len(candidates._heap), len(candidates._late)) <= 2 * len(live) + 64


def test_a_preempted_sequence_is_kept_before_what_nobody_said_anything_about():
    m = Machine(16, max_batch=1)
    slow = m.submit([1] * 60, 8, 2)
    m.step(3)
    m.submit([2] * 60, 8, 0)
    m.step(3)
    m.submit([3] * 90, 8, 0)  # takes what the one before left
    m.drain()
    assert m.ended[slow.id] == answer([1] * 60, 8)
    once = 60 + 7 + 60 + 7 + 90 + 7
    assert m.rows <= once + 1


# The whole way: from a program to the engine.


def two_stages(docs):
    def request(tokens, *parts):
        content = template(*parts)
        return {"model": "m", "temperature": 0, "max_tokens": tokens, "ignore_eos": True, "prompt": content}

    calls = []
    for n in range(docs):
        calls.append({"id": f"a{n}", "output": f"a{n}", "request": request(6, (f"doc{n}",), " First: ")})
        calls.append({"id": f"b{n}", "output": f"b{n}", "request": request(6, (f"doc{n}",), " Then: ", (f"a{n}",))})
    line = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
    inputs = {f"doc{n}": f"{n}: " + line * 4 for n in range(docs)}
    return parse_program({"calls": calls, "inputs": inputs, "outputs": [call["output"] for call in calls]})


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("llama")


async def ran(model, kv_tokens, *disable):
    engine = NativeEngine(
        model,
        names=("m",),
        deterministic=True,
        threads=1,
        kv_tokens=kv_tokens,
        kv_offload_tokens=0,
        max_batch=2,
        name="native-0",
    )
    runtime = Runtime([engine], grace=0.05, disable={"prefill-ahead", *disable})
    await runtime.start()
    run = runtime.submit(two_stages(8))
    await run.wait()
    stats = await engine.stats()
    await runtime.close()
    assert run.status == "finished", run.errors()
    return run.outputs(), stats.prompt_tokens_reused, stats


async def test_the_second_stage_finds_what_the_first_one_left(model):
    """The cache holds half of the documents. The least recently used is always the one that comes next."""
    roomy, everything, stats = await ran(model, 8192)
    half = max(stats.kv_blocks_cached // 2, 1) * BLOCK_SIZE
    kept, reused, _ = await ran(model, half)
    plain, without, _ = await ran(model, half, "retention")
    assert roomy == kept == plain
    assert everything > reused > without + everything / 4
