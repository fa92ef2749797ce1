"""The Triton kernels of attention against the formula in fp64, and against themselves."""

from __future__ import annotations

import pytest
import torch
from attention_steps import SIZE, Inputs, grown
from properties import HealthCheck, given, settings, st

pytest.importorskip("triton")
from semantic_parrot.kernels import tile_attention, triton_attention
from semantic_parrot.kernels.forest import Shared
from semantic_parrot.kernels.paging import Segment, Slots
from semantic_parrot.kernels.store_kv import slots, store_kv
from semantic_parrot.kernels.triton_attention import DETERMINISTIC, Heads, How, plan, refuses


def always(sequences: int, tokens: int) -> bool:
    return True


TREE = How(worth=always)
CUT = How(worth=always, chunk=16)
# Two levels, lengths at the edges of blocks, a chunk that shares and one that doesn't, a sequence of one token.
MIXED = [(20, [(8, [(1, 1), (3, 7)]), (1, 4)]), (1, 1), (1, 36), (6, 21)]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """Parts, and what a plan allocates, hold NaN until they are written."""
    new = tile_attention.Parts.allocate

    def allocate(*shape):
        parts = new(*shape)
        return tile_attention.Parts(parts.out.fill_(torch.nan), parts.weight.fill_(torch.nan))

    monkeypatch.setattr(tile_attention.Parts, "allocate", allocate)
    new_empty = torch.Tensor.new_empty

    def poison(*args, **options):
        fresh = new_empty(*args, **options)
        return fresh.fill_(torch.nan) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(torch.Tensor, "new_empty", poison)


def rows_of(segments) -> int:
    return sum(s.rows for s in segments)


def check(segments, inputs, got, **how) -> None:
    tolerance = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[got.dtype]
    torch.testing.assert_close(
        got.double().cpu(), inputs.expected(segments, **how), atol=tolerance, rtol=10 * tolerance
    )


# Groups of 3, of one (MHA), of all (MQA), of 17; heads that are no power of two, smaller than a tile, and large.
CASES = [
    (TREE, (6, 2, 24), {}),
    (TREE, (2, 2, 16), {"window": 11}),
    (How(), (5, 1, 80), {}),
    (CUT, (4, 4, 5), {"window": 30, "sinks": 1}),
    (CUT, (17, 1, 8), {"softcap": 0.7}),
    (DETERMINISTIC, (4, 2, 160), {"window": 1, "softcap": 2.0, "sinks": 1}),
]


@pytest.mark.parametrize(("how", "heads", "extra"), CASES)
def test_formula(how, heads, extra, dtype, device):
    segments = grown(MIXED)
    rows = rows_of(segments) + 2
    inputs = Inputs.draw(segments, rows, heads, dtype, device)
    if "sinks" in extra:
        extra = {**extra, "sinks": torch.linspace(-2, 3, heads[0], device=device)}
        extra["sinks"][0] = -300  # far below any score: 2^(l - sink) is no number
    caches = [cache.clone() for cache in inputs.caches]
    got = inputs.run(plan(segments, rows, SIZE, device, how=how), **extra)
    check(segments, inputs, got, **extra)
    assert not got[:, -2:].any()  # padding
    for new, cache, stored in zip(inputs.new, caches, inputs.caches, strict=True):
        Slots(segments, rows, SIZE, device).store(new, new, cache, cache.clone())
        torch.testing.assert_close(stored[1:], cache[1:], rtol=0, atol=0, equal_nan=True)


def test_error_is_that_of_sdpa(dtype, device):
    segments = [Segment(i, 1, 150, range(1 + 40 * i, 41 + 40 * i)) for i in range(2)]
    inputs = Inputs.draw(segments, 2, (4, 2, 64), dtype, device)
    got = inputs.run(plan(segments, 2, SIZE, device))
    expected = inputs.expected(segments)
    ours = (got.double().cpu() - expected).abs().max()
    k, v = (
        torch.stack([inputs._whole(s, which) for s in segments]).to(device, dtype).repeat_interleave(2, 1)
        for which in range(2)
    )
    q = inputs.query[0].transpose(0, 1)[:, :, None]
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=inputs.scale)[:, :, 0]
    assert ours <= 1.25 * (theirs.double().cpu() - expected[0]).abs().max()


TREES = st.lists(
    st.recursive(
        st.tuples(st.integers(1, 3), st.integers(3, 9)),
        lambda below: st.tuples(st.sampled_from([4, 8, 20]), st.lists(below, min_size=1, max_size=3)),
        max_leaves=4,
    ),
    min_size=1,
    max_size=2,
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, st.sampled_from([None, 6]), st.sampled_from([None, 12]), st.integers(0, 3))
def test_any_forest_is_the_formula(device, trees, window, chunk, seed):
    segments = grown(trees, seed)
    inputs = Inputs.draw(segments, rows_of(segments), (2, 1, 8), torch.float32, device)
    got = inputs.run(plan(segments, rows_of(segments), SIZE, device, how=How(worth=always, chunk=chunk)), window=window)
    check(segments, inputs, got, window=window)


def test_what_is_shared_is_read_once():
    prefix, own, count = 40, 5, 9
    segments = grown([(prefix, [(1, own)] * count)])
    work = plan(segments, count, SIZE, torch.device("cpu"), how=TREE)._work(Heads(2, 4, 16, 2))
    assert sum(item.end - item.begin for items in work.items.values() for item in items) == prefix + count * own


def test_bits_are_the_same_from_run_to_run(dtype, device):
    segments = grown([(20, [(1, 4), (1, 6)])])
    rows = rows_of(segments)
    inputs = Inputs.draw(segments, rows, (4, 2, 16), dtype, device)
    first = inputs.run(plan(segments, rows, SIZE, device, how=CUT))
    for planned in (segments, segments[::-1]):  # however they are listed
        assert torch.equal(first, inputs.run(plan(planned, rows, SIZE, device, how=CUT)))


@pytest.mark.parametrize("extra", [{}, {"window": 20, "sinks": 1}])
def test_deterministic_bits_do_not_depend_on_company(extra, dtype, device):
    heads = (4, 1, 16)
    if "sinks" in extra:
        extra = {**extra, "sinks": torch.linspace(-2, 3, heads[0], device=device)}
    # Of the chunk's rows, which share a tile, the first sees two ranges and the last three.
    segments = grown([(9, 70), (1, 34)])
    how = How(chunk=32, uniform=True)
    inputs = Inputs.draw(segments, rows_of(segments), heads, dtype, device)
    together = inputs.run(plan(segments, rows_of(segments), SIZE, device, how=how), **extra)
    for s in segments:
        for rows in {1, s.rows}:  # alone: its last row only, then all of them
            where = slice(s.start + s.rows - rows, s.start + s.rows)
            new = [n[:, :, where] for n in inputs.new]
            one = Inputs(inputs.query[:, :, where], new, inputs.caches, inputs.scale)
            got = one.run(plan([Segment(0, rows, s.context, s.blocks)], rows, SIZE, device, how=how), **extra)
            assert torch.equal(got, together[:, where])


def test_what_is_launched_depends_on_shapes_alone(device, monkeypatch):
    """A CUDA graph of a step is good for another step, once the buffer is filled anew."""
    heads = (4, 2, 16)
    steps = [grown(trees) for trees in ([(20, [(1, 3), (1, 2)]), (1, 30)], [(1, 6), (12, [(1, 1), (1, 5)])], [(1, 2)])]
    layer = Heads(2, 2, 16, 4)
    bounds = {"rows": 3, "merges": 3, "slots": 9, "tables": 30}
    bounds |= {o.__name__: 4 for o in triton_attention._OPERATIONS}
    planned = triton_attention.TritonPlan(tuple(steps[0]), 3, SIZE, device, TREE, bounds)
    whole = planned.prepare(layer).whole.data_ptr()
    launched = []
    real = triton_attention.attend

    def spy(*args):
        launched.append([a.shape if isinstance(a, torch.Tensor) else a for a in args if a is not args[4]])
        real(*args)

    monkeypatch.setattr(triton_attention, "attend", spy)
    for i, segments in enumerate(steps):
        if i:
            assert planned.refill(segments)
        inputs = Inputs.draw(segments, 3, heads, torch.float32, device)
        inputs.caches = [torch.cat([c, c.new_zeros(40 - len(c), *c.shape[1:])]) for c in inputs.caches]
        check(segments, inputs, inputs.run(planned))
        assert planned.prepare(layer).whole.data_ptr() == whole
    assert launched[:3] == launched[3:6] == launched[6:9]
    assert not planned.refill(grown([(1, 200)]))  # more blocks than the table has room for


def test_a_step_of_nothing(device):
    inputs = Inputs.draw([], 2, (4, 2, 8), torch.float32, device)
    assert not inputs.run(plan([], 2, SIZE, device)).any()
    assert all(cache.isnan().all() for cache in inputs.caches)  # nothing was stored


def test_a_table_with_holes_before_the_window(device):
    (s,) = grown([(1, 60)])
    inputs = Inputs.draw([s], 1, (2, 1, 16), torch.float32, device)
    expected = inputs.expected([s], window=9)
    holes = Segment(0, 1, 60, [-(10**6)] * 12 + list(s.blocks[12:]))  # of tokens 0 to 47; 51 is the first that it sees
    got = inputs.run(plan([holes], 1, SIZE, device, how=CUT), window=9)
    torch.testing.assert_close(got.double().cpu(), expected, atol=2e-6, rtol=2e-5)


def test_a_row_without_a_suffix_of_its_own(device, monkeypatch):
    """Whatever forest there is, a row's parts are those that see something."""
    blocks = list(range(1, 5))
    segments = [Segment(i, 1, 16, blocks) for i in range(2)]
    forest = triton_attention.forest(segments, SIZE, lambda n, blocks: False)
    shared = Shared(0, 2, 0, blocks)
    monkeypatch.setattr(
        triton_attention, "forest", lambda *_: type(forest)(order=tuple(segments), shared=(shared,), owned=(4, 4))
    )
    inputs = Inputs.draw(segments, 2, (2, 1, 16), torch.float32, device)
    planned = plan(segments, 2, SIZE, device, how=TREE)
    # Both rows store token 15 in one place: with the same contents, in whichever order.
    for new in inputs.new:
        new[:, :, 1] = new[:, :, 0]
    check(segments, inputs, inputs.run(planned))
    assert "merges" not in planned.prepare(Heads(1, 2, 16, 4)).sections


def test_store_takes_any_strides_and_casts(dtype, device):
    caches = [torch.full((3, 2, SIZE, 5), 7.0, dtype=dtype, device=device) for _ in range(2)]
    new = [torch.randn(4, 3, 5, device=device).transpose(0, 1)[:2], torch.randn(2, 4, 10, device=device)[..., :5]]
    segments = [Segment(0, 2, 5, [2, 1]), Segment(3, 1, 1, [1])]  # row 2 belongs to nobody
    store_kv(*new, *caches, slots(segments, 4, SIZE).to(device))
    for cache, fresh in zip(caches, new, strict=True):
        expected = torch.full_like(cache, 7.0)
        for row, block, offset in ((0, 2, 3), (1, 1, 0), (3, 1, 0)):
            expected[block, :, offset] = fresh[:, row].to(dtype)
        assert torch.equal(cache, expected)


def test_what_they_do_not_take():
    good = (8, 2, 64, torch.float16)
    assert refuses(*good) is None
    assert refuses(*good, window=1) is None
    assert "257" in str(refuses(8, 2, 257, torch.float16))
    assert "65 query heads" in str(refuses(65, 1, 64, torch.float16))
    assert "multiple" in str(refuses(8, 3, 64, torch.float16))
    assert "window of 0" in str(refuses(*good, window=0))
    assert "float64" in str(refuses(8, 2, 64, torch.float64))
    assert "float8" in str(refuses(8, 2, 64, torch.float8_e4m3fn))
