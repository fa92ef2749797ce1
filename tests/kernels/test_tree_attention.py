"""The forest of shared blocks against a brute-force reading, and tree attention against the formula."""

from __future__ import annotations

import pytest
import torch
from properties import given, st

from semantic_parrot.kernels import torch_attention, torch_tree
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.forest import forest
from semantic_parrot.kernels.paging import Scores, Segment

CPU = torch.device("cpu")
SIZE = 16


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


# A tree of rows: an int is one row with so many tokens of its own; (tokens, children) is a shared segment.
Tree = int | tuple[int, list["Tree"]]


def grown(trees: list[Tree], *, blocks: list[int], chunks: tuple[tuple[int, int], ...] = ()) -> list[Segment]:
    """Segments for `trees`, blocks handed out from the end of `blocks`; `chunks` are prefills (rows, context)."""
    found: list[Segment] = []

    def walk(tree: Tree, above: list[int]) -> None:
        if isinstance(tree, int):
            own = [blocks.pop() for _ in range(-(-tree // SIZE))]
            found.append(Segment(len(found), 1, len(above) * SIZE + tree, above + own))
            return
        tokens, children = tree
        mine = above + [blocks.pop() for _ in range(tokens // SIZE)]
        for child in children:
            walk(child, mine)

    for tree in trees:
        walk(tree, [])
    start = len(found)
    for rows, context in chunks:
        found.append(Segment(start, rows, context, [blocks.pop() for _ in range(-(-context // SIZE))]))
        start += rows
    return found


def shuffled(count: int, seed: int) -> list[int]:
    return (torch.randperm(count, generator=torch.Generator().manual_seed(seed)) + 1).tolist()


TREES = st.lists(
    st.recursive(
        st.integers(1, 70),
        lambda below: st.tuples(st.sampled_from([16, 32, 160, 480]), st.lists(below, min_size=1, max_size=4)),
        max_leaves=10,
    ),
    min_size=1,
    max_size=4,
)


@given(TREES, st.integers(1, 40), st.integers(0, 5))
def test_the_forest_covers_each_row_once_and_only_with_what_all_of_it_read(trees, least, seed):
    segments = grown(trees, blocks=shuffled(4000, seed))
    found = forest(segments, SIZE, lambda n, blocks: (n - 1) * blocks >= least)
    assert sorted(s.start for s in found.order) == list(range(len(segments)))
    depth = [0] * len(segments)
    for node in sorted(found.shared, key=lambda node: node.begin):
        assert (node.last - node.first - 1) * len(node.blocks) >= least
        for i in range(node.first, node.last):
            assert found.order[i].blocks[node.begin : node.begin + len(node.blocks)] == node.blocks
            assert depth[i] == node.begin  # nothing between the segments of a row, and none twice
            depth[i] += len(node.blocks)
    assert tuple(depth) == found.owned
    # The block that the step writes to is the row's own.
    assert all(n * SIZE < s.context for n, s in zip(found.owned, found.order, strict=True))


def test_a_fan_out_of_documents_is_two_levels():
    segments = grown([(320, [(160, [5, 20]), (160, [40, 3, 7])]), 30], blocks=shuffled(400, 1))
    found = forest(segments, SIZE, lambda n, blocks: True)
    assert sorted((node.last - node.first, node.begin, len(node.blocks)) for node in found.shared) == [
        (2, 20, 10),
        (3, 20, 10),
        (5, 0, 20),
    ]


tree_plan = paged_attention("torch", CPU, deterministic=False)


def run(planner, segments: list[Segment], *, heads: int, kv_heads: int, dim: int, pad: int, **how):
    g = torch.Generator().manual_seed(heads)
    rows = sum(s.rows for s in segments) + pad
    top = 1 + max(max(s.blocks) for s in segments)
    keys, values = (torch.randn(top, kv_heads, SIZE, dim, generator=g) for _ in range(2))
    for cache in (keys, values):  # what lies past a sequence's end must not be read
        for s in segments:
            if s.context % SIZE:
                cache[s.blocks[-1], :, s.context % SIZE :] = 1e3
        cache[0] = 1e3
    query = torch.randn(1, heads, rows, dim, generator=g)
    new = [torch.randn(1, kv_heads, rows, dim, generator=g) for _ in range(2)]
    plan = planner(segments, rows, SIZE, CPU)
    out = plan.attend(query, *new, keys, values, Scores(dim**-0.5, how.get("window")))
    return plan, out, (query, keys, values)


def formula(segments, query, keys, values, window=None):
    """In fp64, from the caches as they are after the step."""
    _, heads, rows, dim = query.shape
    kv_heads = keys.shape[1]
    out = torch.zeros(1, rows, heads, dim, dtype=torch.float64)
    for s in segments:
        k, v = (c[list(s.blocks)].transpose(0, 1).flatten(1, 2)[:, : s.context].double() for c in (keys, values))
        for i in range(s.rows):
            p = s.context - s.rows + i
            low = 0 if window is None else max(0, p - window + 1)
            q = query[0, :, s.start + i].double().view(kv_heads, heads // kv_heads, dim)
            score = q @ k[:, low : p + 1].transpose(1, 2) * dim**-0.5
            out[0, s.start + i] = (score.softmax(-1) @ v[:, low : p + 1]).flatten(0, 1)
    return out


DEEP: list[Tree] = [(800, [(160, [5, 20, 16]), (480, [40, 3, 100, 1])]), (1600, [17, 18]), 30, 500]


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(6, 2, 24), (4, 4, 16), (8, 1, 64)])
@pytest.mark.parametrize("chunks", [(), ((37, 37), (20, 300), (1, 90))])
@pytest.mark.parametrize("pad", [0, 3])
def test_tree_attention_is_the_formula(heads, kv_heads, dim, chunks, pad):
    segments = grown(DEEP, blocks=shuffled(1000, heads), chunks=chunks)
    plan, out, tensors = run(tree_plan, segments, heads=heads, kv_heads=kv_heads, dim=dim, pad=pad)
    assert isinstance(plan, torch_tree.TreePlan)
    torch.testing.assert_close(out.double(), formula(segments, *tensors), atol=2e-6, rtol=2e-5)


@given(TREES, st.integers(0, 5))
def test_any_forest_is_the_formula(trees, seed):
    segments = grown(trees, blocks=shuffled(4000, seed))
    _, out, tensors = run(tree_plan, segments, heads=4, kv_heads=2, dim=8, pad=0)
    torch.testing.assert_close(out.double(), formula(segments, *tensors), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("window", [40, 900, 5000])
def test_a_window_that_cuts_into_what_is_shared_is_obeyed(window):
    segments = grown(DEEP, blocks=shuffled(1000, 3))
    _, out, tensors = run(tree_plan, segments, heads=4, kv_heads=2, dim=16, pad=0, window=window)
    torch.testing.assert_close(out.double(), formula(segments, *tensors, window), atol=2e-6, rtol=2e-5)


def test_a_step_without_decode_rows_is_the_plain_kernel():
    segments = grown([], blocks=shuffled(100, 4), chunks=((20, 30),))
    assert isinstance(tree_plan(segments, 20, SIZE, CPU), torch_attention.TorchPlan)
